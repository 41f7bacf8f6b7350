"""Overlays of convolutions, of mmcv's ``ConvModule`` and of ResNet."""

from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import Conv2dAdaptivePadding, wrappers
from torch import Tensor, nn

from ..models.backbones.efficientnet_lite import Conv2dSame, same_padding
from .onednn import NONE, RELU, Activation, PackedConv, conv2d, conv2d_add_relu, fused_activation, pack_conv
from .overlay import Derived, Overlay, applies, host_class

CONV_FORWARDS = (nn.Conv2d.forward, wrappers.Conv2d.forward, Conv2dAdaptivePadding.forward, Conv2dSame.forward)


def is_packable(conv: nn.Module) -> bool:
    """Whether a module is a 2-D convolution with the forward of ``nn.Conv2d`` and zero padding given in numbers."""
    return (
        isinstance(conv, nn.Conv2d)
        and conv.padding_mode == 'zeros'
        and not isinstance(conv.padding, str)
        and not hasattr(conv, 'parametrizations')
        and (not isinstance(conv, Conv2dAdaptivePadding) or all(size % 2 for size in conv.kernel_size))
        and host_class(conv).forward in CONV_FORWARDS
    )


def is_foldable(norm: nn.Module) -> bool:
    """Whether a norm is a batch norm with running statistics."""
    return isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats


def packed_conv(conv: nn.Conv2d, norm: Optional[nn.BatchNorm2d], x: Tensor, dtype: torch.dtype) -> PackedConv:
    """The weights of a convolution in oneDNN's layout, with the batch norm after it folded in, made once."""
    derived = conv.__dict__.setdefault(f'packed_{dtype}_{id(norm)}', Derived())
    sources = (conv.weight, conv.bias)
    if norm is not None:
        sources += (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    padding = None
    if isinstance(conv, Conv2dAdaptivePadding):
        padding = [dilation * (size - 1) // 2 for dilation, size in zip(conv.dilation, conv.kernel_size)]
        padding = padding if conv.stride == (1, 1) else (0, 0)  # strided ones are padded before
    return derived.get(sources, lambda: pack_conv(conv, norm, x.shape, dtype, padding))


def channels_last(x: Tensor, dtype: torch.dtype) -> Tensor:
    """An image in the layout and dtype of the packed convolutions."""
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def conv_norm(
    conv: nn.Conv2d,
    norm: Optional[nn.Module],
    x: Tensor,
    activation: Activation = NONE,
    dtype: Optional[torch.dtype] = None,
) -> Tensor:
    """A convolution with batch norm and activation, in one."""
    dtype = dtype or x.dtype
    x = channels_last(x, dtype)
    if isinstance(conv, Conv2dAdaptivePadding) and conv.stride != (1, 1):
        pads = same_padding(conv, x)
        x = F.pad(x, pads) if any(pads) else x
    return conv2d(x, packed_conv(conv, norm, x, dtype), activation)


class FastConv2d(Overlay):
    """A convolution by oneDNN, channels last."""

    def forward(self, x: Tensor) -> Tensor:
        if not applies(self, x):
            return super().forward(x)
        return conv_norm(self, None, x, dtype=self.compute_dtype).to(x.dtype)


def is_plain_conv_module(module: nn.Module) -> bool:
    """Whether mmcv's ``ConvModule`` is a convolution, a batch norm or none, and an activation that can be fused."""
    return (
        is_packable(module.conv)
        and module.order == ('conv', 'norm', 'act')
        and not module.with_spectral_norm
        and not module.with_explicit_padding
        and (not module.with_norm or is_foldable(module.norm))
        and (not module.with_activation or fused_activation(module.activate) is not None)
    )


class FastConvModule(Overlay):
    """mmcv's ``ConvModule``: batch norm and activation are part of the convolution."""

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        norm_layer = self.norm if norm and self.with_norm else None
        if not applies(self, x) or (norm_layer is not None and norm_layer.training):
            return super().forward(x, activate, norm)
        activation = fused_activation(self.activate) if activate and self.with_activation else NONE
        return conv_norm(self.conv, norm_layer, x, activation, self.compute_dtype).to(x.dtype)


def is_plain_block(block: nn.Module) -> bool:
    """Whether a block of mmdet's ResNet has nothing but convolutions, batch norms and ReLU."""
    convs = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    norms = [getattr(block, name) for name in ('norm1', 'norm2', 'norm3') if hasattr(block, f'{name}_name')]
    plain_shortcut = block.downsample is None or is_plain_shortcut(block.downsample)
    return (
        not getattr(block, 'with_plugins', False)
        and not getattr(block, 'with_dcn', False)
        and all(map(is_packable, convs))
        and all(map(is_foldable, norms))
        and type(block.relu) is nn.ReLU
        and plain_shortcut
    )


def is_plain_shortcut(shortcut: nn.Sequential) -> bool:
    """Whether a shortcut is an average pooling or none, a convolution and its batch norm."""
    modules = list(shortcut)
    if modules and isinstance(modules[0], nn.AvgPool2d):
        modules = modules[1:]
    return len(modules) == 2 and is_packable(modules[0]) and is_foldable(modules[1])


class FastResNetBlock(Overlay):
    """A block of mmdet's ResNet: each convolution with its batch norm, its activation and the sum in one.

    ``owns_input``: the input comes from the block before and is used by nobody else, so that the sum may be written
    over it.
    """

    owns_input = False

    def forward(self, x: Tensor) -> Tensor:
        if not applies(self, x):
            return super().forward(x)
        dtype = self.compute_dtype
        x = channels_last(x, dtype)
        identity, in_place = x, self.owns_input
        if self.downsample is not None:
            *pool, conv, norm = self.downsample
            identity = conv_norm(conv, norm, pool[0](x) if pool else x, dtype=dtype)
            in_place = True
        names = [name for name in ('1', '2', '3') if hasattr(self, f'conv{name}')]
        layers = [(getattr(self, f'conv{name}'), getattr(self, f'norm{name}')) for name in names]
        for conv, norm in layers[:-1]:
            x = conv_norm(conv, norm, x, RELU, dtype)
        conv, norm = layers[-1]
        return conv2d_add_relu(x, packed_conv(conv, norm, x, dtype), identity, in_place)


class FastResNet(Overlay):
    """mmdet's ResNet, channels last from its input on; the stem's batch norm and activation are part of it."""

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        if not applies(self, x):
            return super().forward(x)
        host_dtype = x.dtype
        x = F.max_pool2d(
            conv_norm(self.conv1, self.norm1, x, RELU, self.compute_dtype),
            self.maxpool.kernel_size,
            self.maxpool.stride,
            self.maxpool.padding,
        )
        outputs = []
        for index, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if index in self.out_indices:
                outputs.append(x.to(host_dtype))
        return tuple(outputs)


def is_plain_resnet(backbone: nn.Module) -> bool:
    """Whether the stem of a ResNet is one convolution, batch norm, ReLU and maximum pooling."""
    return (
        not backbone.deep_stem
        and is_packable(backbone.conv1)
        and is_foldable(backbone.norm1)
        and not backbone.maxpool.ceil_mode
        and backbone.maxpool.dilation == 1
    )
