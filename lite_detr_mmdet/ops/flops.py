"""FLOP counts of the operators for the counters of torch, and of fvcore and mmengine.

Counted are the multiply-adds per sample and head: 4 * head_dim for the bilinear interpolation of the value (again for
the key, if it is another tensor), head_dim for the logit, unless the weights are given, and head_dim for the weighted
sum. Locations and softmax are left out, as usual. The backward pass has the products of the four corners with the
output's gradient (and the query) for the locations and the weights, and the scatter to the four corners.
"""

from math import prod
from typing import Any, Callable, Dict, List, Sequence

import torch
from torch.utils.flop_counter import flop_registry, register_flop_formula

from .extension import is_available


def count_forward_macs(query_shape: Sequence[int], num_samples: int, separate_key: bool) -> int:
    """Multiply-adds of the forward pass.

    Args:
        query_shape (Sequence[int]): (bs, num_queries, num_heads, head_dim).
        num_samples (int): ``num_levels * num_points``.
        separate_key (bool): Whether key and value are different tensors.
    """
    interpolations = 2 if separate_key else 1
    return prod(query_shape) * num_samples * (4 * interpolations + 2)


def count_backward_macs(query_shape: Sequence[int], num_samples: int, separate_key: bool) -> int:
    """Multiply-adds of the backward pass; arguments as in :func:`count_forward_macs`.

    Per sample and channel: 8 for the products of the four corners with the query and the output's gradient, 4 for the
    gradient of the query, 2 for the update of a token (one for value and one for key) and 4 (8 with a separate key)
    to spread it over the corners.
    """
    interpolations = 2 if separate_key else 1
    return prod(query_shape) * num_samples * (8 + 4 + 2 + 4 * interpolations)


def count_msda_forward_macs(output_shape: Sequence[int], num_samples: int) -> int:
    """Multiply-adds of the forward pass with given weights.

    Args:
        output_shape (Sequence[int]): (bs, num_queries, num_heads * head_dim), or the same with the heads apart.
        num_samples (int): ``num_levels * num_points``.
    """
    return prod(output_shape) * num_samples * (4 + 1)


def count_msda_backward_macs(output_shape: Sequence[int], num_samples: int) -> int:
    """Multiply-adds of the backward pass with given weights; arguments as in :func:`count_msda_forward_macs`.

    Per sample and channel: 4 for the products of the four corners with the output's gradient, 1 for the update of a
    token and 4 to spread it over the corners.
    """
    return prod(output_shape) * num_samples * (4 + 1 + 4)


def _num_samples(spatial_shapes_shape: Sequence[int], sampling_offsets_shape: Sequence[int]) -> int:
    return spatial_shapes_shape[0] * sampling_offsets_shape[4]


def _kda_flops(
    query_shape,
    value_shape,
    shapes_shape,
    start_shape,
    reference_shape,
    offsets_shape,
    key_shape=None,
    *args,
    **kwargs,
) -> int:
    return 2 * count_forward_macs(query_shape, _num_samples(shapes_shape, offsets_shape), key_shape is not None)


def _kda_backward_flops(
    grad_shape,
    query_shape,
    value_shape,
    shapes_shape,
    start_shape,
    reference_shape,
    offsets_shape,
    key_shape,
    *args,
    **kwargs,
) -> int:
    return 2 * count_backward_macs(query_shape, _num_samples(shapes_shape, offsets_shape), key_shape is not None)


def _msda_output_shape(value_shape: Sequence[int], offsets_shape: Sequence[int]) -> tuple:
    return (*offsets_shape[:3], value_shape[3])


def _msda_flops(value_shape, shapes_shape, start_shape, reference_shape, offsets_shape, *args, **kwargs) -> int:
    output_shape = _msda_output_shape(value_shape, offsets_shape)
    return 2 * count_msda_forward_macs(output_shape, _num_samples(shapes_shape, offsets_shape))


def _msda_backward_flops(
    grad_shape, value_shape, shapes_shape, start_shape, reference_shape, offsets_shape, *args, **kwargs
) -> int:
    return 2 * count_msda_backward_macs(grad_shape, _num_samples(shapes_shape, offsets_shape))


def _shape_of(value: Any) -> Any:
    """Shape of a value in a traced graph; None for an absent optional tensor."""
    value_type = value.type()
    return value_type.sizes() if isinstance(value_type, torch._C.TensorType) else None


def key_aware_deform_attn_flop_jit(inputs: List[Any], outputs: List[Any]) -> int:
    """Handler for ``set_op_handle`` of the FLOP counters of fvcore and mmengine, which count a multiply-add as one.

    Args:
        inputs (List[torch._C.Value]): Inputs of ``lite_detr::key_aware_deform_attn`` in a traced graph.
        outputs (List[torch._C.Value]): Its outputs.

    Returns:
        int: Multiply-adds.
    """
    query, _, spatial_shapes, _, _, sampling_offsets, key = [_shape_of(value) for value in inputs[:7]]
    return count_forward_macs(query, _num_samples(spatial_shapes, sampling_offsets), key is not None)


def multi_scale_deform_attn_flop_jit(inputs: List[Any], outputs: List[Any]) -> int:
    """The same for ``lite_detr::multi_scale_deform_attn``."""
    value, spatial_shapes, _, _, sampling_offsets, _ = [_shape_of(value) for value in inputs[:6]]
    output_shape = _msda_output_shape(value, sampling_offsets)
    return count_msda_forward_macs(output_shape, _num_samples(spatial_shapes, sampling_offsets))


FLOP_HANDLERS = {
    'lite_detr::key_aware_deform_attn': key_aware_deform_attn_flop_jit,
    'lite_detr::multi_scale_deform_attn': multi_scale_deform_attn_flop_jit,
}

FORMULAS: Dict[str, Callable[..., int]] = {
    'key_aware_deform_attn': _kda_flops,
    'key_aware_deform_attn_backward': _kda_backward_flops,
    'multi_scale_deform_attn': _msda_flops,
    'multi_scale_deform_attn_backward': _msda_backward_flops,
}
if is_available():
    for name, formula in FORMULAS.items():
        operator = getattr(torch.ops.lite_detr, name)
        # torch 2.4 registers overloads of an operator and then looks for the operator.
        flop_registry.setdefault(operator, register_flop_formula(operator)(formula))
