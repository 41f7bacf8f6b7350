"""Deformable attention in operators that exporters support.

Sizes of the levels are Python numbers or symbols here, never tensors: an exporter writes both into the graph. Two
forms compute the same. ``grid`` uses GridSample, which ONNX Runtime and OpenVINO have; ``gather`` does without, for
runtimes whose GridSample is missing or wrong.
"""

from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

LevelShapes = Sequence[Tuple[int, int]]


def sampling_points(reference_points: Tensor, sampling_offsets: Tensor, level_shapes: LevelShapes) -> List[Tensor]:
    """Sampling points of each level in pixels of its map; the centre of the first pixel is (0, 0).

    Args:
        reference_points (Tensor): (bs or 1, num_queries, num_levels, 2 or 4), normalised points or boxes, float32.
        sampling_offsets (Tensor): (bs, num_queries, num_heads, num_levels or 1, num_points, 2), float32.
        level_shapes (sequence[tuple[int, int]]): (H_l, W_l) of each level.

    Returns:
        list[Tensor]: Of each level (bs, num_heads, num_queries, num_points, 2), (x, y).
    """
    offsets = sampling_offsets.permute(0, 2, 1, 3, 4, 5)
    num_points = offsets.shape[4]
    points = []
    for level, (height, width) in enumerate(level_shapes):
        size = _pair(width, height, offsets)
        reference = reference_points[:, None, :, level, None]
        offset = offsets[:, :, :, level if offsets.shape[3] > 1 else 0]
        if reference.shape[-1] == 4:  # in halves of the box, shared out over the points
            offset = offset * (reference[..., 2:] * size * (0.5 / num_points))
        points.append(reference[..., :2] * size - 0.5 + offset)
    return points


def _pair(first: int, second: int, like: Tensor) -> Tensor:
    """Two numbers or symbols as a float tensor, (2, )."""
    return torch.stack([torch.scalar_tensor(number, dtype=like.dtype) for number in (first, second)])


def sample_grid(value: Tensor, points: Sequence[Tensor], level_shapes: LevelShapes) -> List[Tensor]:
    """Bilinear samples by GridSample; pixels outside the map are zero.

    Args:
        value (Tensor): (bs, num_value, num_heads, head_dim), float32.
        points (sequence[Tensor]): See :func:`sampling_points`.
        level_shapes (sequence[tuple[int, int]]): (H_l, W_l) of each level.

    Returns:
        list[Tensor]: Of each level (bs * num_heads, head_dim, num_queries, num_points).
    """
    tokens = value.permute(0, 2, 3, 1).flatten(0, 1)
    samples, start = [], 0
    for (height, width), pixels in zip(level_shapes, points):
        maps = tokens[:, :, start : start + height * width].unflatten(-1, (height, width))
        grid = (2 * pixels + 1) / _pair(width, height, pixels) - 1
        samples.append(
            F.grid_sample(maps, grid.flatten(0, 1), mode='bilinear', padding_mode='zeros', align_corners=False)
        )
        start += height * width
    return samples


def sample_gather(value: Tensor, points: Sequence[Tensor], level_shapes: LevelShapes) -> List[Tensor]:
    """Bilinear samples by reading rows of tokens; arguments and result as in :func:`sample_grid`."""
    bs, num_value, num_heads, head_dim = value.shape
    rows = value.permute(0, 2, 1, 3).reshape(-1, head_dim)
    first_row = torch.arange(bs * num_heads).view(-1, 1, 1) * num_value
    samples, start = [], 0
    corners = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]).view(4, 1, 1, 1, 2)
    for (height, width), pixels in zip(level_shapes, points):
        size = _pair(width, height, pixels)
        # A point further out than one pixel reads zero like one at that distance.
        pixels = pixels.flatten(0, 1).minimum(size).clamp(min=-1)  # (bs * num_heads, num_queries, num_points, 2)
        first = pixels.floor()
        cells = first.long() + corners  # (4, bs * num_heads, num_queries, num_points, 2)
        kept = cells.clamp(min=0).minimum(size.long() - 1)
        weights = ((1 - corners - (pixels - first)).abs() * (cells == kept)).prod(-1)
        rows_of_corners = kept[..., 1] * width + kept[..., 0] + start + first_row
        sampled = 0  # one corner after another: all at once take four times the memory
        for index, weight in zip(rows_of_corners.unbind(0), weights.unbind(0)):
            sampled = sampled + F.embedding(index, rows) * weight[..., None]
        samples.append(sampled.permute(0, 3, 1, 2))
        start += height * width
    return samples


SAMPLERS = {'grid': sample_grid, 'gather': sample_gather}


def attend(
    form: str,
    value: Tensor,
    level_shapes: LevelShapes,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    query: Optional[Tensor] = None,
    key: Optional[Tensor] = None,
    logits: Optional[Tensor] = None,
) -> Tensor:
    """Deformable attention: key-aware with ``query``, ordinary with ``logits``.

    Args:
        form (str): 'grid' or 'gather'.
        value (Tensor): (bs, num_value, num_heads, head_dim), padded tokens zero.
        level_shapes (sequence[tuple[int, int]]): (H_l, W_l) of each level.
        reference_points (Tensor): (bs or 1, num_queries, num_levels, 2 or 4).
        sampling_offsets (Tensor): (bs, num_queries, num_heads, num_levels or 1, num_points, 2).
        query (Tensor, optional): (bs, num_queries, num_heads, head_dim). Defaults to None.
        key (Tensor, optional): As ``value``; None where the key is the value. Defaults to None.
        logits (Tensor, optional): (bs, num_queries, num_heads, num_levels * num_points). Defaults to None.

    Returns:
        Tensor: (bs, num_queries, num_heads * head_dim), in the dtype of ``value``.
    """
    dtype = value.dtype
    sample = SAMPLERS[form]
    points = sampling_points(reference_points.float(), sampling_offsets.float(), level_shapes)
    samples = sample(value.float(), points, level_shapes)
    if query is None:
        logits = logits.float().transpose(1, 2).flatten(0, 1)
    else:
        keys = samples if key is None else sample(key.float(), points, level_shapes)
        scaled = query.float().permute(0, 2, 3, 1).flatten(0, 1)[..., None] * query.shape[-1] ** -0.5
        logits = torch.cat([(scaled * sampled).sum(1) for sampled in keys], dim=-1)
    weights = logits.softmax(-1)[:, None].chunk(len(samples), dim=-1)
    output = 0
    for weight, sampled in zip(weights, samples):
        output = output + (weight * sampled).sum(-1)  # (bs * num_heads, head_dim, num_queries)
    return output.unflatten(0, (-1, value.shape[2])).flatten(1, 2).transpose(1, 2).to(dtype)
