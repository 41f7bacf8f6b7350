"""The public key-aware deformable attention operator and the choice of its backend."""

import os
import warnings
from typing import Optional, Tuple

import torch
from torch import Tensor

from .checks import check_key_aware_deform_attn
from .extension import explain_missing, has_kernel
from .reference import key_aware_deform_attn_reference

BACKENDS = ('auto', 'fused', 'reference')
BACKEND_VARIABLE = 'LITE_DETR_BACKEND'
_warned_about = set()


# A constant while torch compiles: neither the environment nor the library is part of the graph.
@torch.compiler.assume_constant_result
def choose_backend(backend: str, device_type: str) -> str:
    """The backend to run, 'fused' or 'reference'.

    Args:
        backend (str): One of ``BACKENDS``. The environment variable LITE_DETR_BACKEND replaces 'auto'.
        device_type (str): Type of the device of the tensors.

    Raises:
        ValueError: If the backend or the environment variable is none of ``BACKENDS``.
        RuntimeError: If 'fused' is asked for and there is no compiled operator for the device.
    """
    source = 'backend'
    if backend == 'auto':
        source, backend = BACKEND_VARIABLE, os.environ.get(BACKEND_VARIABLE) or 'auto'
    if backend not in BACKENDS:
        raise ValueError(f'{source} must be one of {", ".join(map(repr, BACKENDS))}, got {backend!r}')
    # Tensors without data have the shapes of the compiled operator wherever it is loaded.
    if backend == 'reference' or has_kernel('cpu' if device_type == 'meta' else device_type):
        return 'reference' if backend == 'reference' else 'fused'
    if backend == 'fused':
        raise RuntimeError(f"backend='fused' is not available for {device_type}: {explain_missing(device_type)}.")
    if device_type not in _warned_about:
        _warned_about.add(device_type)
        warnings.warn(
            f'key_aware_deform_attn runs in plain PyTorch on {device_type}, which is many times slower: '
            f"{explain_missing(device_type)}. backend='reference' or {BACKEND_VARIABLE}=reference asks for it "
            'without this warning.',
            stacklevel=3,
        )
    return 'reference'


def cast_for_autocast(*tensors: Optional[Tensor]) -> Tuple[Optional[Tensor], ...]:
    """Tensors in the dtype of autocast, where it is on for their device; float64 stays, as in torch's own rules."""
    device_type = tensors[0].device.type
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
    float32 and rounded at the end. The fused backend has no second derivative.

    Args:
        query (Tensor): Projected queries, (bs, num_queries, num_heads, head_dim).
        value (Tensor): Projected values with padded tokens set to zero, (bs, num_value, num_heads, head_dim), in the
            dtype of ``query``.
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
    if isinstance(query, Tensor) and isinstance(value, Tensor) and (key is None or isinstance(key, Tensor)):
        query, value, key = cast_for_autocast(query, value, key)
    check_key_aware_deform_attn(
        query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets, key
    )
    if choose_backend(backend, query.device.type) == 'fused':
        return torch.ops.lite_detr.key_aware_deform_attn(
            query, value, key, spatial_shapes, level_start_index, reference_points, sampling_offsets
        )[0]
    return key_aware_deform_attn_reference(
        query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets, key
    )
