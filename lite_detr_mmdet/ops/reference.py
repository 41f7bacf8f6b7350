"""The operators in plain PyTorch: the definitions that every kernel is tested against."""

from typing import Any, List, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad


def get_sampling_points(
    reference_points: Tensor, sampling_offsets: Tensor, height: int, width: int, level: int
) -> Tensor:
    """Sampling points of one level in pixels of its map; the centre of the first pixel is (0, 0).

    A point that is not finite or that touches no pixel is moved to (-2, -2), where it reads zero as before, so that
    no later step meets a number that it cannot convert to an index.

    Args:
        reference_points (Tensor): (bs, num_queries, num_levels, 2 or 4), normalised to [0, 1].
        sampling_offsets (Tensor): (bs, num_queries, num_heads, num_levels or 1, num_points, 2).
        height (int): Height of the level's map.
        width (int): Width of the level's map.
        level (int): Index of the level.

    Returns:
        Tensor: (bs, num_queries, num_heads, num_points, 2), (x, y) in pixels.
    """
    reference = reference_points[:, :, None, level, None]
    offsets = sampling_offsets[:, :, :, level if sampling_offsets.shape[3] > 1 else 0]
    size = torch.tensor([width, height], dtype=offsets.dtype, device=offsets.device)
    scale: Union[float, Tensor] = 1.0
    if reference.shape[-1] == 4:  # offsets in units of half the box, shared out over the points
        scale = reference[..., 2:] * size * (0.5 / offsets.shape[3])
    points = reference[..., :2] * size - 0.5 + offsets * scale
    inside = ((points > -1) & (points < size)).all(-1, keepdim=True)
    if torch.is_tensor(scale):  # or the gradient of the box would be 0 * inf
        points = reference[..., :2] * size - 0.5 + torch.where(inside, offsets, 0) * scale
    return torch.where(inside, points, points.new_tensor(-2.0))


def sample_level(value: Tensor, points: Tensor, height: int, width: int) -> Tensor:
    """Bilinear samples of one level; pixels outside the map are zero.

    Args:
        value (Tensor): (bs, height * width, num_heads, head_dim).
        points (Tensor): (bs, num_queries, num_heads, num_points, 2), (x, y) in pixels.
        height (int): Height of the level's map.
        width (int): Width of the level's map.

    Returns:
        Tensor: (bs * num_heads, head_dim, num_queries, num_points).
    """
    bs, _, num_heads, head_dim = value.shape
    num_queries, num_points = points.shape[1], points.shape[3]
    if 0 in (height, width, bs, num_queries):  # no map or nobody who looks at it; grid_sample refuses both
        # Tied to both inputs, so that each of them still receives a gradient of zero.
        nothing = value.sum() * 0 + points.sum().to(value.dtype) * 0
        return nothing.expand(bs * num_heads, head_dim, num_queries, num_points)
    if forward_ad._current_level >= 0:
        return gather_level(value, points, height, width)
    maps = value.permute(0, 2, 3, 1).reshape(bs * num_heads, head_dim, height, width)
    size = torch.tensor([width, height], dtype=points.dtype, device=points.device)
    grid = (2 * points + 1) / size - 1
    grid = grid.transpose(1, 2).flatten(0, 1)
    return F.grid_sample(maps, grid.to(maps.dtype), mode='bilinear', padding_mode='zeros', align_corners=False)


def gather_level(value: Tensor, points: Tensor, height: int, width: int) -> Tensor:
    """The same as :func:`sample_level` by gathering the four corners, which torch can differentiate in any mode.

    ``grid_sample`` has no forward-mode derivative.
    """
    bs, num_value, num_heads, head_dim = value.shape
    rows = value.permute(0, 2, 3, 1).reshape(bs * num_heads, head_dim, num_value)
    points = points.transpose(1, 2).flatten(0, 1)  # (bs * num_heads, num_queries, num_points, 2)
    first = points.detach().floor()
    sampled: Any = 0
    for corner in ((0, 0), (1, 0), (0, 1), (1, 1)):
        pixel = first + first.new_tensor(corner)
        x, y = pixel.long().unbind(-1)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        token = (y * width + x).where(inside, 0)
        weight = (1 - (points - pixel).abs()).prod(-1).where(inside, 0)
        index = token.flatten(1)[:, None].expand(-1, head_dim, -1)
        sampled = sampled + weight[:, None].to(value.dtype) * rows.gather(2, index).unflatten(2, token.shape[1:])
    return sampled


def sample(tensor: Tensor, points: List[Tensor], shapes: List[List[int]]) -> Tensor:
    """Bilinear samples of all levels: (bs * num_heads, head_dim, num_queries, num_levels * num_points)."""
    levels = tensor.split([height * width for height, width in shapes], dim=1)
    return torch.cat(
        [sample_level(level, pts, *shape) for level, pts, shape in zip(levels, points, shapes)],
        dim=-1,
    )


def get_all_sampling_points(
    spatial_shapes: Tensor, reference_points: Tensor, sampling_offsets: Tensor, dtype: torch.dtype
) -> Tuple[List[Tensor], List[List[int]]]:
    """Sampling points of every level as in :func:`get_sampling_points`, and (H, W) of every level.

    They are computed in ``dtype``: half-precision coordinates would be off by more than half a pixel on a wide map.
    """
    reference_points, sampling_offsets = reference_points.to(dtype), sampling_offsets.to(dtype)
    shapes = spatial_shapes.tolist()
    points = [
        get_sampling_points(reference_points, sampling_offsets, height, width, level)
        for level, (height, width) in enumerate(shapes)
    ]
    return points, shapes


def weigh(sampled_value: Tensor, attention_weights: Tensor, num_heads: int) -> Tensor:
    """Weighted sum of the samples, (bs, num_queries, num_heads * head_dim).

    Args:
        sampled_value (Tensor): (bs * num_heads, head_dim, num_queries, num_samples).
        attention_weights (Tensor): (bs * num_heads, 1, num_queries, num_samples).
        num_heads (int): Number of heads.
    """
    output = (attention_weights * sampled_value).sum(-1)
    _, head_dim, num_queries = output.shape
    return output.view(len(output) // num_heads, num_heads * head_dim, num_queries).transpose(1, 2)


def compare(query: Tensor, sampled_key: Tensor) -> Tensor:
    """Weights of the samples by comparing each query with its keys, (bs * num_heads, 1, num_queries, num_samples).

    Args:
        query (Tensor): (bs, num_queries, num_heads, head_dim).
        sampled_key (Tensor): (bs * num_heads, head_dim, num_queries, num_samples).
    """
    bs, num_queries, num_heads, head_dim = query.shape
    scaled_query = query.permute(0, 2, 3, 1).reshape(bs * num_heads, head_dim, num_queries, 1) * head_dim**-0.5
    return (scaled_query * sampled_key).sum(1, keepdim=True).softmax(-1)


def key_aware_deform_attn_reference(
    query: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Optional[Tensor] = None,
) -> Tensor:
    """Key-aware deformable attention (Lite DETR, Sec. 3.6, Eq. 4) in plain PyTorch.

    Arguments, result and meaning as in :func:`lite_detr_mmdet.ops.key_aware_deform_attn`, without its checks. When
    the key is the value it is sampled once. Half precision is computed in float32 and rounded at the end.
    """
    dtype = query.dtype
    compute_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    query, value = query.to(compute_dtype), value.to(compute_dtype)
    points, shapes = get_all_sampling_points(spatial_shapes, reference_points, sampling_offsets, compute_dtype)
    sampled_value = sample(value, points, shapes)
    sampled_key = sampled_value if key is None else sample(key.to(compute_dtype), points, shapes)
    return weigh(sampled_value, compare(query, sampled_key), query.shape[2]).to(dtype).contiguous()


def multi_scale_deform_attn_reference(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Multi-scale deformable attention with given weights (Deformable DETR, Sec. 4.1, Eq. 3) in plain PyTorch.

    Arguments, result and meaning as in :func:`lite_detr_mmdet.ops.multi_scale_deform_attn`, without its checks. Half
    precision is computed in float32 and rounded at the end.
    """
    dtype = value.dtype
    compute_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    value = value.to(compute_dtype)
    points, shapes = get_all_sampling_points(spatial_shapes, reference_points, sampling_offsets, compute_dtype)
    bs, _, num_heads, _ = value.shape
    num_queries, num_samples = sampling_offsets.shape[1], attention_weights.shape[3] * attention_weights.shape[4]
    weights = attention_weights.to(compute_dtype).transpose(1, 2)
    weights = weights.reshape(bs * num_heads, 1, num_queries, num_samples)
    return weigh(sample(value, points, shapes), weights, num_heads).to(dtype).contiguous()
