"""Shapes and gradients of the compiled operators for torch's autograd, compiler and export."""

from typing import Any, Callable, Optional, Tuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import Library

from .checks import check_backward, check_key_aware_deform_attn, check_multi_scale_deform_attn
from .extension import is_available

NAMESPACE = 'lite_detr'


class ReverseModeLibrary(Library):
    """Registers kernels for autograd that refuse forward-mode differentiation.

    The kernels that torch makes know the backward pass alone and would drop the tangents without a word.
    """

    def impl(self, op_name: str, fn: Callable, dispatch_key: str = '', **kwargs: Any) -> None:
        """Register a kernel; those of autograd look for tangents first."""
        if dispatch_key == 'Autograd':
            kernel = fn

            def fn(keyset, *args: Any, **kernel_kwargs: Any) -> Any:
                check_no_tangents(op_name, args)
                return kernel(keyset, *args, **kernel_kwargs)

        super().impl(op_name, fn, dispatch_key, **kwargs)


def check_no_tangents(op_name: str, args: tuple) -> None:
    """Raise a NotImplementedError if forward-mode differentiation goes through a compiled operator."""
    if forward_ad._current_level < 0:
        return
    if any(isinstance(arg, Tensor) and forward_ad.unpack_dual(arg).tangent is not None for arg in args):
        raise NotImplementedError(
            f"{op_name} has no forward-mode derivative (jvp, jacfwd): use backend='reference' for it"
        )


# ---- Key-aware deformable attention ----


def _fake_kda(
    query: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Optional[Tensor] = None,
) -> Tuple[Tensor, Tensor]:
    check_key_aware_deform_attn(
        query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets, key
    )
    bs, num_queries, num_heads, head_dim = query.shape
    accumulate_dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    output = query.new_empty((bs, num_queries, num_heads * head_dim))
    return output, query.new_empty((bs, num_queries, num_heads), dtype=accumulate_dtype)


def _fake_kda_backward(
    grad_output: Tensor,
    query: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Optional[Tensor],
    logsumexp: Tensor,
    reference_points_grad: bool,
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    check_key_aware_deform_attn(
        query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets, key
    )
    check_backward('query', query, sampling_offsets, grad_output, logsumexp)
    return (
        query.new_empty(query.shape),
        torch.empty_like(value),
        reference_points.new_empty(reference_points.shape if reference_points_grad else (0,)),
        sampling_offsets.new_empty(sampling_offsets.shape),
        query.new_empty((0,)) if key is None else torch.empty_like(key),
    )


def _save_kda(ctx, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward_kda(ctx, grad_output: Tensor, grad_logsumexp: Optional[Tensor]) -> tuple:
    *inputs, logsumexp = ctx.saved_tensors
    reference_points_grad = ctx.needs_input_grad[4]
    grad_query, grad_value, grad_reference_points, grad_sampling_offsets, grad_key = (
        torch.ops.lite_detr.key_aware_deform_attn_backward(grad_output, *inputs, logsumexp, reference_points_grad)
    )
    return (
        grad_query,
        grad_value,
        None,
        None,
        grad_reference_points if reference_points_grad else None,
        grad_sampling_offsets,
        None if inputs[6] is None else grad_key,
    )


# ---- Multi-scale deformable attention ----


def _fake_msda(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    check_multi_scale_deform_attn(
        value, spatial_shapes, level_start_index, reference_points, sampling_offsets, attention_weights
    )
    bs, _, num_heads, head_dim = value.shape
    return value.new_empty((bs, sampling_offsets.shape[1], num_heads * head_dim))


def _fake_msda_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_weights: Tensor,
    reference_points_grad: bool,
) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    check_multi_scale_deform_attn(
        value, spatial_shapes, level_start_index, reference_points, sampling_offsets, attention_weights
    )
    check_backward('value', value, sampling_offsets, grad_output, None)
    return (
        torch.empty_like(value),
        reference_points.new_empty(reference_points.shape if reference_points_grad else (0,)),
        sampling_offsets.new_empty(sampling_offsets.shape),
        attention_weights.new_empty(attention_weights.shape),
    )


def _save_msda(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward_msda(ctx, grad_output: Tensor) -> tuple:
    reference_points_grad = ctx.needs_input_grad[3]
    grad_value, grad_reference_points, grad_sampling_offsets, grad_attention_weights = (
        torch.ops.lite_detr.multi_scale_deform_attn_backward(grad_output, *ctx.saved_tensors, reference_points_grad)
    )
    return (
        grad_value,
        None,
        None,
        grad_reference_points if reference_points_grad else None,
        grad_sampling_offsets,
        grad_attention_weights,
    )


# ---- Both ----


def _save_nothing(ctx, inputs: tuple, output: tuple) -> None:
    pass


def _refuse_second_derivative(operator: str) -> Callable:
    def backward(ctx, *grads) -> None:
        raise NotImplementedError(
            f"{operator} has no second derivative: use backend='reference' for a double backward"
        )

    return backward


def register() -> Library:
    """Register shapes and gradients with torch, once, where the operators are compiled.

    Returns:
        torch.library.Library: What was registered; it lasts as long as this object.
    """
    library = ReverseModeLibrary(NAMESPACE, 'FRAGMENT')
    for operator, fake, fake_backward, save, backward in (
        ('key_aware_deform_attn', _fake_kda, _fake_kda_backward, _save_kda, _backward_kda),
        ('multi_scale_deform_attn', _fake_msda, _fake_msda_backward, _save_msda, _backward_msda),
    ):
        forward_name, backward_name = f'{NAMESPACE}::{operator}', f'{NAMESPACE}::{operator}_backward'
        torch.library.register_fake(forward_name, fake, lib=library)
        torch.library.register_fake(backward_name, fake_backward, lib=library)
        torch.library.register_autograd(forward_name, backward, setup_context=save, lib=library)
        torch.library.register_autograd(
            backward_name, _refuse_second_derivative(operator), setup_context=_save_nothing, lib=library
        )
    return library


LIBRARY = register() if is_available() else None
