"""Argument checks of the operators: each error names the argument, what was expected and what came.

The compiled operators make the same checks in the same order (``csrc/core/checks.cpp``). These are for the plain
PyTorch forms, and for tensors without data, while torch compiles or exports.
"""

from typing import Any, Optional

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
INDEX_DTYPES = (torch.int64, torch.int32)


def check_is_tensor(name: str, tensor: Any) -> None:
    """Raise a TypeError that names the argument if it is no tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f'{name} must be a torch.Tensor, got {type(tensor).__name__}')


def _check_tensor(name: str, tensor: Tensor, ndim: int, layout: str, dtypes: tuple) -> None:
    check_is_tensor(name, tensor)
    if tensor.dtype not in dtypes:
        expected = ', '.join(str(dtype) for dtype in dtypes)
        raise TypeError(f'{name} must have one of the dtypes {expected}, got {tensor.dtype}')
    if tensor.ndim != ndim:
        raise ValueError(f'{name} must have {ndim} dimensions {layout}, got shape {tuple(tensor.shape)}')


def _check_size(name: str, tensor: Tensor, dim: int, expected: int, meaning: str) -> None:
    if tensor.shape[dim] != expected:
        raise ValueError(
            f'{name} must have size {expected} in dimension {dim} ({meaning}), got shape {tuple(tensor.shape)}'
        )


def _check_ranks(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
) -> None:
    """Dtypes and ranks of what both operators take."""
    _check_tensor('value', value, 4, '(bs, num_value, num_heads, head_dim)', FLOAT_DTYPES)
    _check_tensor('spatial_shapes', spatial_shapes, 2, '(num_levels, 2)', INDEX_DTYPES)
    _check_tensor('level_start_index', level_start_index, 1, '(num_levels, )', INDEX_DTYPES)
    _check_tensor('reference_points', reference_points, 4, '(bs, num_queries, num_levels, 2 or 4)', FLOAT_DTYPES)
    _check_tensor(
        'sampling_offsets',
        sampling_offsets,
        6,
        '(bs, num_queries, num_heads, num_levels or 1, num_points, 2)',
        FLOAT_DTYPES,
    )


def _check_leader(name: str, leader: Tensor, spatial_shapes: Tensor) -> None:
    """The tensor that tells heads and channels has some, and there is a level."""
    if leader.shape[2] < 1 or leader.shape[3] < 1:
        raise ValueError(
            f'{name} must have at least one head and one channel per head, got shape {tuple(leader.shape)}'
        )
    if spatial_shapes.shape[0] < 1:
        raise ValueError('spatial_shapes must hold at least one level, got none')


def _check_locations(
    leader_name: str,
    leader: Tensor,
    asker_name: str,
    asker: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
) -> None:
    """Sizes of levels, reference points and offsets; ``leader`` tells batch size and heads, ``asker`` the queries."""
    bs, num_heads = leader.shape[0], leader.shape[2]
    num_queries, num_levels = asker.shape[1], spatial_shapes.shape[0]
    _check_size('spatial_shapes', spatial_shapes, 1, 2, 'height and width of a level')
    _check_size('level_start_index', level_start_index, 0, num_levels, 'the levels of spatial_shapes')

    _check_size('reference_points', reference_points, 0, bs, f'the batch size of {leader_name}')
    _check_size('reference_points', reference_points, 1, num_queries, f'the queries of {asker_name}')
    _check_size('reference_points', reference_points, 2, num_levels, 'the levels of spatial_shapes')
    if reference_points.shape[3] not in (2, 4):
        raise ValueError(
            'reference_points must hold points (x, y) or boxes (x, y, w, h) in its last dimension, got shape '
            f'{tuple(reference_points.shape)}'
        )

    _check_size('sampling_offsets', sampling_offsets, 0, bs, f'the batch size of {leader_name}')
    _check_size('sampling_offsets', sampling_offsets, 1, num_queries, f'the queries of {asker_name}')
    _check_size('sampling_offsets', sampling_offsets, 2, num_heads, f'the heads of {leader_name}')
    if sampling_offsets.shape[3] not in (1, num_levels):
        raise ValueError(
            f'sampling_offsets must have size {num_levels} (the levels of spatial_shapes) or 1 (offsets shared by the '
            f'levels) in dimension 3, got shape {tuple(sampling_offsets.shape)}'
        )
    if sampling_offsets.shape[4] < 1:
        raise ValueError(f'sampling_offsets must hold at least one point, got shape {tuple(sampling_offsets.shape)}')
    _check_size('sampling_offsets', sampling_offsets, 5, 2, 'x and y of an offset')


def _check_devices(leader_name: str, leader: Tensor, levels: dict, others: dict) -> None:
    """``others`` lie on the device of ``leader``, ``levels`` there or in host memory."""
    for name, tensor in others.items():
        if tensor is not None and tensor.device != leader.device:
            raise ValueError(f'{name} must be on the device of {leader_name}, {leader.device}, got {tensor.device}')
    for name, tensor in levels.items():
        if tensor.device not in (leader.device, torch.device('cpu')):
            raise ValueError(
                f'{name} must be on the device of {leader_name}, {leader.device}, or on cpu, got {tensor.device}'
            )


def _has_values(tensor: Tensor) -> bool:
    """Whether the numbers can be read at no cost: not while tracing and not across a GPU's queue."""
    return type(tensor) is Tensor and tensor.device.type == 'cpu' and not torch.compiler.is_compiling()


def check_spatial_shapes(spatial_shapes: Tensor, level_start_index: Tensor, num_value: int) -> None:
    """Check the values of ``spatial_shapes`` and ``level_start_index`` against the number of tokens.

    This reads the two tensors, so it is meant for tensors in host memory: on a GPU it would synchronise.

    Raises:
        ValueError: If a size is negative, if the sizes do not add up to ``num_value`` tokens or if a level does not
            start where the one before it ends.
    """
    start = 0
    for level, ((height, width), index) in enumerate(zip(spatial_shapes.tolist(), level_start_index.tolist())):
        if height < 0 or width < 0:
            raise ValueError(f'spatial_shapes must not be negative, got {(height, width)} for level {level}')
        if index != start:
            raise ValueError(
                f'level_start_index must be {start} for level {level}, the number of tokens of the levels before it, '
                f'got {index}'
            )
        start += height * width
    if start != num_value:
        raise ValueError(
            f'spatial_shapes {spatial_shapes.tolist()} must add up to the {num_value} tokens of value, got {start}'
        )


def check_key_aware_deform_attn(
    query: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Optional[Tensor] = None,
) -> None:
    """Check the arguments of :func:`lite_detr_mmdet.ops.key_aware_deform_attn`; shapes and meanings are given there.

    Raises:
        TypeError: If an argument is not a tensor or has a wrong dtype.
        ValueError: If a rank, size, device, level count, start index or the sum of ``spatial_shapes`` is wrong.
    """
    _check_tensor('query', query, 4, '(bs, num_queries, num_heads, head_dim)', FLOAT_DTYPES)
    _check_ranks(value, spatial_shapes, level_start_index, reference_points, sampling_offsets)
    _check_leader('query', query, spatial_shapes)
    if value.dtype != query.dtype:
        raise TypeError(f'value must have the dtype of query, {query.dtype}, got {value.dtype}')
    _check_size('value', value, 0, query.shape[0], 'the batch size of query')
    _check_size('value', value, 2, query.shape[2], 'the heads of query')
    _check_size('value', value, 3, query.shape[3], 'the channels per head of query')
    _check_locations(
        'query', query, 'query', query, spatial_shapes, level_start_index, reference_points, sampling_offsets
    )
    if key is not None:
        _check_tensor('key', key, 4, '(bs, num_value, num_heads, head_dim)', FLOAT_DTYPES)
        if key.dtype != query.dtype:
            raise TypeError(f'key must have the dtype of query, {query.dtype}, got {key.dtype}')
        if key.shape != value.shape:
            raise ValueError(f'key must have the shape of value, {tuple(value.shape)}, got {tuple(key.shape)}')
    _check_devices(
        'query',
        query,
        dict(spatial_shapes=spatial_shapes, level_start_index=level_start_index),
        dict(value=value, reference_points=reference_points, sampling_offsets=sampling_offsets, key=key),
    )
    if _has_values(spatial_shapes) and _has_values(level_start_index):
        check_spatial_shapes(spatial_shapes, level_start_index, value.shape[1])


def check_multi_scale_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_weights: Tensor,
) -> None:
    """Check the arguments of :func:`lite_detr_mmdet.ops.multi_scale_deform_attn`; shapes and meanings are given there.

    Raises:
        TypeError: If an argument is not a tensor or has a wrong dtype.
        ValueError: If a rank, size, device, level count, start index or the sum of ``spatial_shapes`` is wrong.
    """
    _check_ranks(value, spatial_shapes, level_start_index, reference_points, sampling_offsets)
    layout = '(bs, num_queries, num_heads, num_levels, num_points)'
    _check_tensor('attention_weights', attention_weights, 5, layout, FLOAT_DTYPES)
    _check_leader('value', value, spatial_shapes)
    _check_locations(
        'value',
        value,
        'sampling_offsets',
        sampling_offsets,
        spatial_shapes,
        level_start_index,
        reference_points,
        sampling_offsets,
    )
    _check_size('attention_weights', attention_weights, 0, value.shape[0], 'the batch size of value')
    num_queries, num_points = sampling_offsets.shape[1], sampling_offsets.shape[4]
    _check_size('attention_weights', attention_weights, 1, num_queries, 'the queries of sampling_offsets')
    _check_size('attention_weights', attention_weights, 2, value.shape[2], 'the heads of value')
    _check_size('attention_weights', attention_weights, 3, spatial_shapes.shape[0], 'the levels of spatial_shapes')
    _check_size('attention_weights', attention_weights, 4, num_points, 'the points of sampling_offsets')
    _check_devices(
        'value',
        value,
        dict(spatial_shapes=spatial_shapes, level_start_index=level_start_index),
        dict(
            reference_points=reference_points,
            sampling_offsets=sampling_offsets,
            attention_weights=attention_weights,
        ),
    )
    if _has_values(spatial_shapes) and _has_values(level_start_index):
        check_spatial_shapes(spatial_shapes, level_start_index, value.shape[1])


def check_backward(
    leader_name: str, leader: Tensor, sampling_offsets: Tensor, grad_output: Tensor, logsumexp: Optional[Tensor]
) -> None:
    """Check what only the backward pass takes; ``leader`` is query or, with given weights, value.

    Raises:
        TypeError: If ``grad_output`` or ``logsumexp`` has a wrong dtype.
        ValueError: If one of them has a wrong shape or lies on another device.
    """
    if grad_output.dtype != leader.dtype:
        raise TypeError(f'grad_output must have the dtype of {leader_name}, {leader.dtype}, got {grad_output.dtype}')
    bs, _, num_heads, head_dim = leader.shape
    expected = (bs, sampling_offsets.shape[1], num_heads * head_dim)
    if tuple(grad_output.shape) != expected:
        raise ValueError(
            f'grad_output must have the shape (bs, num_queries, num_heads * head_dim) = {expected} of the output, '
            f'got {tuple(grad_output.shape)}'
        )
    others = dict(grad_output=grad_output, logsumexp=logsumexp)
    if logsumexp is not None:
        dtype = torch.float64 if leader.dtype == torch.float64 else torch.float32
        if logsumexp.dtype != dtype:
            raise TypeError(f'logsumexp must be a {dtype} tensor, got {logsumexp.dtype}')
        if logsumexp.shape != leader.shape[:3]:
            raise ValueError(
                f'logsumexp must have the shape (bs, num_queries, num_heads) of query {tuple(leader.shape)}, '
                f'got {tuple(logsumexp.shape)}'
            )
    _check_devices(leader_name, leader, {}, others)
