"""Shapes and gradients of the compiled operator for torch's autograd, compiler and export."""

from typing import Optional, Tuple

import torch
from torch import Tensor

from .extension import is_available

FORWARD = 'lite_detr::key_aware_deform_attn'
BACKWARD = 'lite_detr::key_aware_deform_attn_backward'


def _fake_forward(
    query: Tensor,
    value: Tensor,
    key: Optional[Tensor],
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
) -> Tuple[Tensor, Tensor]:
    bs, num_queries, num_heads, head_dim = query.shape
    accumulate_dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    output = query.new_empty((bs, num_queries, num_heads * head_dim))
    return output, query.new_empty((bs, num_queries, num_heads), dtype=accumulate_dtype)


def _fake_backward(
    grad_output: Tensor,
    query: Tensor,
    value: Tensor,
    key: Optional[Tensor],
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    logsumexp: Tensor,
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        query.new_empty(query.shape),
        value.new_empty(value.shape),
        value.new_empty((0,) if key is None else key.shape),
        reference_points.new_empty(reference_points.shape),
        sampling_offsets.new_empty(sampling_offsets.shape),
    )


def _save_for_backward(ctx, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, grad_output: Tensor, grad_logsumexp: Optional[Tensor]) -> tuple:
    *inputs, logsumexp = ctx.saved_tensors
    grads = torch.ops.lite_detr.key_aware_deform_attn_backward(grad_output, *inputs, logsumexp)
    grad_query, grad_value, grad_key, grad_reference_points, grad_sampling_offsets = grads
    if inputs[2] is None:
        grad_key = None
    return grad_query, grad_value, grad_key, None, None, grad_reference_points, grad_sampling_offsets


def _save_nothing(ctx, inputs: tuple, output: tuple) -> None:
    pass


def _no_double_backward(ctx, *grads) -> None:
    raise NotImplementedError(
        "key_aware_deform_attn has no second derivative: use backend='reference' for a double backward"
    )


def register() -> None:
    """Register shapes and gradients with torch, once, where the operator is compiled."""
    torch.library.register_fake(FORWARD, _fake_forward)
    torch.library.register_fake(BACKWARD, _fake_backward)
    torch.library.register_autograd(FORWARD, _backward, setup_context=_save_for_backward)
    torch.library.register_autograd(BACKWARD, _no_double_backward, setup_context=_save_nothing)


if is_available():
    register()
