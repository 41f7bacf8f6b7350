"""Linear layers and convolutions by oneDNN, with weights in its packed layout and the next operations fused in.

These are the operators that ``torch.compile`` with freezing uses. On AMD processors they take half the time of torch's
linear layers, for which MKL does not use AVX-512.
"""

import os
from typing import NamedTuple, Optional, Sequence

import torch
from torch import Tensor, nn

# Rows of a block of tokens are chosen such that what is computed between its first and its last product stays in the
# second and third cache: about this many numbers.
BLOCK_NUMBERS = 1 << 20


class Activation(NamedTuple):
    """An activation as oneDNN's operators name it."""

    name: str = 'none'
    scalars: tuple = ()
    algorithm: str = ''


NONE = Activation()
RELU = Activation('relu')


def fused_activation(module: Optional[nn.Module]) -> Optional[Activation]:
    """An activation that can be fused into the layer before it, None for one that cannot."""
    if module is None or isinstance(module, nn.Identity):
        return NONE
    if type(module) is nn.ReLU:
        return RELU
    if isinstance(module, nn.Hardtanh):  # nn.ReLU6 too
        return Activation('hardtanh', (module.min_val, module.max_val))
    if type(module) is nn.SiLU:
        return Activation('swish')
    if type(module) is nn.GELU:
        return Activation('gelu', (), module.approximate)
    return None


class PackedLinear(NamedTuple):
    """A linear layer in oneDNN's layout."""

    weight: Tensor
    bias: Optional[Tensor]
    dtype: torch.dtype


def pack_linear(weight: Tensor, bias: Optional[Tensor], dtype: torch.dtype) -> PackedLinear:
    """Bring the weights of a linear layer, (out_channels, in_channels), into oneDNN's layout."""
    bias = None if bias is None else bias.detach().to(dtype).clone()
    weight = weight.detach().to(dtype).contiguous()
    return PackedLinear(torch.ops.mkldnn._reorder_linear_weight(weight), bias, dtype)


def linear(x: Tensor, packed: PackedLinear, activation: Activation = NONE) -> Tensor:
    """A linear layer, in the dtype of its weights.

    Args:
        x (Tensor): (..., in_channels).
        packed (PackedLinear): The layer.
        activation (Activation): What follows it. Defaults to none.

    Returns:
        Tensor: (..., out_channels), in the dtype of the weights.
    """
    return torch.ops.mkldnn._linear_pointwise(x.to(packed.dtype), packed.weight, packed.bias, *activation)


def linear_add(x: Tensor, packed: PackedLinear, identity: Tensor) -> Tensor:
    """A linear layer whose output is added to ``identity``, in the dtype of the latter."""
    if packed.dtype == identity.dtype:
        return torch.ops.mkldnn._linear_pointwise.binary(x, identity, packed.weight, packed.bias, 'add')
    return linear(x, packed) + identity


class PackedConv(NamedTuple):
    """A convolution in oneDNN's layout."""

    weight: Tensor
    bias: Optional[Tensor]
    options: tuple  # padding, stride, dilation, groups
    dtype: torch.dtype


def pack_conv(
    conv: nn.Conv2d,
    norm: Optional[nn.BatchNorm2d],
    input_shape: Sequence[int],
    dtype: torch.dtype,
    padding: Optional[Sequence[int]] = None,
) -> PackedConv:
    """Fold a batch norm into a convolution and bring its weights into oneDNN's layout, best for an input shape."""
    weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
    if norm is not None:
        weight, bias = torch.nn.utils.fuse_conv_bn_weights(
            weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
    padding = list(conv.padding if padding is None else padding)
    options = (padding, list(conv.stride), list(conv.dilation), conv.groups)
    packed = torch.ops.mkldnn._reorder_convolution_weight(
        weight.detach().to(dtype).contiguous(), *options, list(input_shape)
    )
    return PackedConv(packed, None if bias is None else bias.detach().to(dtype).clone(), options, dtype)


def conv2d(x: Tensor, packed: PackedConv, activation: Activation = NONE) -> Tensor:
    """A convolution, in the dtype of its weights; ``x`` and the output are (bs, channels, H, W) in channels-last."""
    return torch.ops.mkldnn._convolution_pointwise(x, packed.weight, packed.bias, *packed.options, *activation)


def conv2d_add_relu(x: Tensor, packed: PackedConv, identity: Tensor, in_place: bool) -> Tensor:
    """A convolution, the sum with ``identity`` and a ReLU; in the memory of ``identity`` if that is asked for."""
    if in_place:
        function = torch.ops.mkldnn._convolution_pointwise_.binary
        return function(identity, x, packed.weight, packed.bias, *packed.options, 'add', None, 'relu', [], None)
    function = torch.ops.mkldnn._convolution_pointwise.binary
    return function(x, identity, packed.weight, packed.bias, *packed.options, 'add', None, 'relu', [], None)


def block_rows(numbers_per_row: int) -> int:
    """Tokens of a block, given how many numbers are computed for each."""
    return max(256, BLOCK_NUMBERS // max(1, numbers_per_row) // 64 * 64)


def has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16, and oneDNN may use it (ONEDNN_MAX_CPU_ISA)."""
    probe = getattr(torch.cpu, '_is_avx512_bf16_supported', None)
    limit = os.environ.get('ONEDNN_MAX_CPU_ISA', 'ALL').upper()
    return probe is not None and probe() and limit not in ('SSE41', 'AVX', 'AVX2', 'AVX2_VNNI', 'AVX512_CORE')


def why_not(dtype: torch.dtype) -> Optional[str]:
    """The reason why these operators cannot be used on this machine with a dtype; None if they can."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return f'oneDNN is not part of this torch ({torch.__version__}) or disabled'
    if dtype == torch.bfloat16 and not has_bfloat16():
        return 'the processor has no instructions for bfloat16 (AVX512-BF16, AMX), so that it would be slower'
    layer, conv = nn.Linear(8, 8), nn.Conv2d(8, 8, 3, padding=1)
    try:
        with torch.no_grad():
            x, image = torch.randn(4, 8), torch.randn(1, 8, 6, 6).contiguous(memory_format=torch.channels_last)
            packed_linear = pack_linear(layer.weight, layer.bias, dtype)
            linear(x, packed_linear, RELU), linear_add(x, packed_linear, x)
            packed_conv = pack_conv(conv, None, image.shape, dtype)
            conv2d_add_relu(image.to(dtype), packed_conv, conv2d(image.to(dtype), packed_conv, RELU), True)
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        return f'torch {torch.__version__} has no packed oneDNN operators for this machine: {reason}'
    return None
