"""The public key-aware deformable attention operator."""

from typing import Optional

from torch import Tensor

from .checks import check_key_aware_deform_attn
from .reference import key_aware_deform_attn_reference

BACKENDS = ('auto', 'reference')


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
        backend (str): 'auto' or 'reference' (plain PyTorch). Defaults to 'auto'.

    Returns:
        Tensor: (bs, num_queries, num_heads * head_dim), in the dtype of ``query``.

    Raises:
        TypeError: If an argument is not a tensor or has a wrong dtype.
        ValueError: If a rank, size, device, level count, start index, the sum of ``spatial_shapes`` or the backend is
            wrong. The values of ``spatial_shapes`` and ``level_start_index`` are checked where they lie in host
            memory.
    """
    if backend not in BACKENDS:
        raise ValueError(f'backend must be one of {", ".join(map(repr, BACKENDS))}, got {backend!r}')
    check_key_aware_deform_attn(
        query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets, key
    )
    return key_aware_deform_attn_reference(
        query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets, key
    )
