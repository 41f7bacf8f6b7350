"""Argument checks of the operators: each error names the argument, what was expected and what came."""

from typing import Optional

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
INDEX_DTYPES = (torch.int64, torch.int32)


def _check_tensor(name: str, tensor: Tensor, ndim: int, layout: str, dtypes: tuple) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f'{name} must be a torch.Tensor, got {type(tensor).__name__}')
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
    bs, num_queries, num_heads, head_dim = query.shape
    num_levels = spatial_shapes.shape[0]
    if num_heads < 1 or head_dim < 1:
        raise ValueError(f'query must have at least one head and one channel per head, got shape {tuple(query.shape)}')
    if num_levels < 1:
        raise ValueError('spatial_shapes must hold at least one level, got none')

    if value.dtype != query.dtype:
        raise TypeError(f'value must have the dtype of query, {query.dtype}, got {value.dtype}')
    _check_size('value', value, 0, bs, 'the batch size of query')
    _check_size('value', value, 2, num_heads, 'the heads of query')
    _check_size('value', value, 3, head_dim, 'the channels per head of query')
    if key is not None:
        _check_tensor('key', key, 4, '(bs, num_value, num_heads, head_dim)', FLOAT_DTYPES)
        if key.dtype != query.dtype:
            raise TypeError(f'key must have the dtype of query, {query.dtype}, got {key.dtype}')
        if key.shape != value.shape:
            raise ValueError(f'key must have the shape of value, {tuple(value.shape)}, got {tuple(key.shape)}')

    _check_size('spatial_shapes', spatial_shapes, 1, 2, 'height and width')
    _check_size('level_start_index', level_start_index, 0, num_levels, 'the levels of spatial_shapes')

    _check_size('reference_points', reference_points, 0, bs, 'the batch size of query')
    _check_size('reference_points', reference_points, 1, num_queries, 'the queries of query')
    _check_size('reference_points', reference_points, 2, num_levels, 'the levels of spatial_shapes')
    if reference_points.shape[3] not in (2, 4):
        raise ValueError(
            'reference_points must hold points (x, y) or boxes (x, y, w, h) in its last dimension, got shape '
            f'{tuple(reference_points.shape)}'
        )

    _check_size('sampling_offsets', sampling_offsets, 0, bs, 'the batch size of query')
    _check_size('sampling_offsets', sampling_offsets, 1, num_queries, 'the queries of query')
    _check_size('sampling_offsets', sampling_offsets, 2, num_heads, 'the heads of query')
    if sampling_offsets.shape[3] not in (1, num_levels):
        raise ValueError(
            f'sampling_offsets must have size {num_levels} (the levels of spatial_shapes) or 1 (offsets shared by the '
            f'levels) in dimension 3, got shape {tuple(sampling_offsets.shape)}'
        )
    if sampling_offsets.shape[4] < 1:
        raise ValueError(f'sampling_offsets must hold at least one point, got shape {tuple(sampling_offsets.shape)}')
    _check_size('sampling_offsets', sampling_offsets, 5, 2, 'x and y')

    tensors = dict(value=value, key=key, reference_points=reference_points, sampling_offsets=sampling_offsets)
    for name, tensor in tensors.items():
        if tensor is not None and tensor.device != query.device:
            raise ValueError(f'{name} must be on the device of query, {query.device}, got {tensor.device}')
    for name, tensor in dict(spatial_shapes=spatial_shapes, level_start_index=level_start_index).items():
        if tensor.device not in (query.device, torch.device('cpu')):
            raise ValueError(f'{name} must be on the device of query, {query.device}, or on cpu, got {tensor.device}')

    # Values are read where that costs nothing: not while tracing and not across a GPU's queue.
    if spatial_shapes.device.type == level_start_index.device.type == 'cpu' and not torch.compiler.is_compiling():
        check_spatial_shapes(spatial_shapes, level_start_index, value.shape[1])
