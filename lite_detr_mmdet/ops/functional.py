"""The public operators."""

from typing import Any, Optional, Tuple

import torch
from torch import Tensor

from .backend import choose_backend
from .checks import check_is_tensor, check_key_aware_deform_attn, check_multi_scale_deform_attn
from .reference import key_aware_deform_attn_reference, multi_scale_deform_attn_reference


def cast_for_autocast(first: Tensor, *others: Optional[Tensor]) -> Tuple[Any, ...]:
    """Tensors in the dtype of autocast, where it is on for their device; float64 stays, as in torch's own rules."""
    tensors = (first, *others)
    device_type = first.device.type
    if device_type == 'meta' or not torch.is_autocast_enabled(device_type):
        return tensors
    dtype = torch.get_autocast_dtype(device_type)
    return tuple(
        tensor.to(dtype)
        if tensor is not None and tensor.is_floating_point() and tensor.dtype != torch.float64
        else tensor
        for tensor in tensors
    )


def key_aware_deform_attn(
    query: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Optional[Tensor] = None,
    backend: str = 'auto',
) -> Tensor:
    """Key-aware deformable attention (Lite DETR, Sec. 3.6, Eq. 4).

    Each head of each query samples ``num_levels * num_points`` keys and values by bilinear interpolation (zero
    outside the map, pixel centres at half-integers), compares itself with the sampled keys
    (``<query, key> / sqrt(head_dim)``, softmax over the samples) and returns the weighted sum of the sampled values.

    The sampling locations are ``(x, y) + offset / (W_l, H_l)`` for reference points and
    ``(x, y) + offset / num_points * (w, h) / 2`` for reference boxes. A location that is not finite reads zero.

    Under autocast query, value and key are cast to its dtype, and locations keep theirs. Half precision is computed in
    float32 and rounded at the end. The fused backend has no second derivative and no forward-mode derivative.

    Args:
        query (Tensor): Projected queries, (bs, num_queries, num_heads, head_dim).
        value (Tensor): Projected values with padded tokens set to zero, (bs, num_value, num_heads, head_dim), in the
            dtype of ``query``. Any strides; on a CPU the fastest layout has the heads outside of the tokens.
        spatial_shapes (Tensor): (H_l, W_l) of each level, (num_levels, 2), int64 or int32. The products add up to
            ``num_value``.
        level_start_index (Tensor): Index of the first token of each level, (num_levels, ), int64 or int32.
        reference_points (Tensor): Points (x, y) or boxes (x, y, w, h), normalised to [0, 1] over the padded map,
            (bs, num_queries, num_levels, 2 or 4). Any floating dtype.
        sampling_offsets (Tensor): (bs, num_queries, num_heads, num_levels or 1, num_points, 2), in pixels of the
            level for points, in half boxes for boxes; 1 in place of ``num_levels`` shares them between the levels.
            Any floating dtype.
        key (Tensor, optional): Projected keys with padded tokens set to zero, shape and dtype of ``value``. None
            means that the key is the value (all released models), which is sampled once. Defaults to None.
        backend (str): 'fused' (compiled), 'reference' (plain PyTorch) or 'auto': what the environment variable
            LITE_DETR_BACKEND says, else 'fused' if it is compiled for the device, else 'reference' with a warning.
            Defaults to 'auto'.

    Returns:
        Tensor: (bs, num_queries, num_heads * head_dim), in the dtype of ``query``.

    Raises:
        TypeError: If an argument is not a tensor or has a wrong dtype.
        ValueError: If a rank, size, device, level count, start index, the sum of ``spatial_shapes`` or the backend is
            wrong. The values of ``spatial_shapes`` and ``level_start_index`` are checked where they lie in host
            memory.
        RuntimeError: If ``backend`` is 'fused' and there is no compiled operator for the device.
    """
    check_is_tensor('query', query)
    check_is_tensor('value', value)
    if key is not None:
        check_is_tensor('key', key)
    query, value, key = cast_for_autocast(query, value, key)
    arguments = (query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets, key)
    if choose_backend(backend, query.device.type, 'key_aware_deform_attn') == 'fused':
        # The compiled operator checks its arguments itself.
        check_is_tensor('spatial_shapes', spatial_shapes)
        check_is_tensor('level_start_index', level_start_index)
        check_is_tensor('reference_points', reference_points)
        check_is_tensor('sampling_offsets', sampling_offsets)
        return torch.ops.lite_detr.key_aware_deform_attn(*arguments)[0]
    check_key_aware_deform_attn(*arguments)
    return key_aware_deform_attn_reference(*arguments)


def multi_scale_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_weights: Tensor,
    backend: str = 'auto',
) -> Tensor:
    """Multi-scale deformable attention with given weights (Deformable DETR, Sec. 4.1, Eq. 3).

    Each head of each query samples ``num_levels * num_points`` values as :func:`key_aware_deform_attn` does and
    returns their sum with the given weights. Equal to mmcv's ``multi_scale_deformable_attn_pytorch``, whose
    ``sampling_locations`` are worked out here. To pass locations themselves, give them as ``sampling_offsets`` of the
    box (0, 0, 2 * num_points, 2 * num_points) for every query and level.

    Under autocast the value is cast to its dtype; locations and weights keep theirs. Half precision is computed in
    float32 and rounded at the end. The fused backend has no second derivative and no forward-mode derivative.

    Args:
        value (Tensor): Projected values with padded tokens set to zero, (bs, num_value, num_heads, head_dim). Any
            strides; on a CPU the fastest layout has the heads outside of the tokens.
        spatial_shapes (Tensor): (H_l, W_l) of each level, (num_levels, 2), int64 or int32. The products add up to
            ``num_value``.
        level_start_index (Tensor): Index of the first token of each level, (num_levels, ), int64 or int32.
        reference_points (Tensor): Points (x, y) or boxes (x, y, w, h), normalised to [0, 1] over the padded map,
            (bs, num_queries, num_levels, 2 or 4). Any floating dtype.
        sampling_offsets (Tensor): (bs, num_queries, num_heads, num_levels or 1, num_points, 2), in pixels of the
            level for points, in half boxes for boxes; 1 in place of ``num_levels`` shares them between the levels.
            Any floating dtype.
        attention_weights (Tensor): Weights of the samples, as a rule after a softmax over levels and points,
            (bs, num_queries, num_heads, num_levels, num_points). Any floating dtype.
        backend (str): As in :func:`key_aware_deform_attn`. Defaults to 'auto'.

    Returns:
        Tensor: (bs, num_queries, num_heads * head_dim), in the dtype of ``value``.

    Raises:
        TypeError: If an argument is not a tensor or has a wrong dtype.
        ValueError: If a rank, size, device, level count, start index, the sum of ``spatial_shapes`` or the backend is
            wrong. The values of ``spatial_shapes`` and ``level_start_index`` are checked where they lie in host
            memory.
        RuntimeError: If ``backend`` is 'fused' and there is no compiled operator for the device.
    """
    check_is_tensor('value', value)
    (value,) = cast_for_autocast(value)
    arguments = (value, spatial_shapes, level_start_index, reference_points, sampling_offsets, attention_weights)
    if choose_backend(backend, value.device.type, 'multi_scale_deform_attn') == 'fused':
        # The compiled operator checks its arguments itself.
        check_is_tensor('spatial_shapes', spatial_shapes)
        check_is_tensor('level_start_index', level_start_index)
        check_is_tensor('reference_points', reference_points)
        check_is_tensor('sampling_offsets', sampling_offsets)
        check_is_tensor('attention_weights', attention_weights)
        return torch.ops.lite_detr.multi_scale_deform_attn(*arguments)
    check_multi_scale_deform_attn(*arguments)
    return multi_scale_deform_attn_reference(*arguments)
