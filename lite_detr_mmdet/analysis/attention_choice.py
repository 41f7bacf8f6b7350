"""Which queries and which samples of a trace to look at. All of the first image, in pixels before resizing."""

from typing import NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .attention import AttentionLayer, AttentionTrace


class Points(NamedTuple):
    """Samples, those of the largest weight first.

    Attributes:
        xy (Tensor): Locations in pixels, (num_samples, 2).
        weights (Tensor): (num_samples, ).
        levels (Tensor): Level of each, (num_samples, ).
        heads (Tensor): Head of each, (num_samples, ).
    """

    xy: Tensor
    weights: Tensor
    levels: Tensor
    heads: Tensor


def image_size(layer: AttentionLayer) -> Tuple[int, int]:
    """Width and height of the first image."""
    width, height = layer.image_sizes[0].tolist()
    return int(width), int(height)


def check_point(layer: AttentionLayer, x: float, y: float) -> None:
    """Raise a ValueError if a point is outside of the image."""
    width, height = image_size(layer)
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f'query {x:g},{y:g} is outside of the image, which is {width}x{height} pixels')


def find_query(
    layer: AttentionLayer, point: Optional[Sequence[float]] = None, box: Optional[Sequence[float]] = None
) -> int:
    """The query that belongs to a point or a box.

    Args:
        layer (AttentionLayer): The layer.
        point (sequence[float], optional): (x, y). In the encoder, the token of the highest resolution whose centre is
            nearest, among those that the layer updates; in the decoder, the smallest reference box around the point,
            else the nearest centre.
        box (sequence[float], optional): (x1, y1, x2, y2). In the decoder, the reference box of the largest overlap
            (IoU); in the encoder, the token at the centre.

    Raises:
        ValueError: If the point is outside of the image, or the box is empty.
    """
    references = layer.reference_pixels[0]
    if box is not None:
        x1, y1, x2, y2 = box
        if not (x1 < x2 and y1 < y2):
            raise ValueError(
                f'box must be x1,y1,x2,y2 with x1 < x2 and y1 < y2, got {",".join(f"{v:g}" for v in box)}'
            )
        if references.shape[1] == 4:
            return int(_overlaps(references, references.new_tensor([x1, y1, x2, y2])).argmax())
        point = ((x1 + x2) / 2, (y1 + y2) / 2)
    assert point is not None
    check_point(layer, *point)
    wanted = references.new_tensor(list(point))
    distances = (references[:, :2] - wanted).norm(dim=1)
    if references.shape[1] == 4:
        around = ((references[:, :2] - wanted).abs() <= references[:, 2:] / 2).all(1)
        if around.any():
            return int(references[:, 2:].prod(1).masked_fill(~around, torch.inf).argmin())
    if layer.tokens is not None:  # tokens of all levels lie over each other: take those of the finest one
        distances = distances[: _tokens_of_first_level(layer)]
    return int(distances.argmin())


def _tokens_of_first_level(layer: AttentionLayer) -> int:
    level = layer.level_of(0)
    assert level is not None
    height, width = layer.level_shapes[level]
    return height * width


def _overlaps(centred: Tensor, box: Tensor) -> Tensor:
    """IoU of boxes (cx, cy, w, h) with a box (x1, y1, x2, y2)."""
    first, last = centred[:, :2] - centred[:, 2:] / 2, centred[:, :2] + centred[:, 2:] / 2
    common = (torch.minimum(last, box[2:]) - torch.maximum(first, box[:2])).clamp(min=0).prod(1)
    return common / (centred[:, 2:].prod(1) + (box[2:] - box[:2]).prod() - common)


def default_query(trace: AttentionTrace, layer: AttentionLayer) -> int:
    """The query of the best detection; in the encoder, the token at its centre. Without one, that of the image."""
    found = trace.predictions[0].pred_instances
    width, height = image_size(layer)
    point, box = (width / 2, height / 2), None
    if len(found):
        x1, y1, x2, y2 = found.bboxes[found.scores.argmax()].tolist()
        x1, x2 = max(x1, 0), min(x2, width - 1e-3)
        y1, y2 = max(y1, 0), min(y2, height - 1e-3)
        if x1 < x2 and y1 < y2:
            box = (x1, y1, x2, y2)
    return find_query(layer, None if box else point, box)


def check_query(layer: AttentionLayer, index: int) -> int:
    """The index, if there is such a query.

    Raises:
        ValueError: If not.
    """
    if not 0 <= index < layer.num_queries:
        raise ValueError(
            f'index must be from 0 to {layer.num_queries - 1} in {layer.part} layer {layer.index}, got {index}'
        )
    return index


def strongest_of_query(layer: AttentionLayer, query: int, count: int) -> Points:
    """The samples of one query, on all levels, that have the largest weights."""
    samples = layer.of_queries([query])
    weights = samples.weights[0, 0]  # (num_heads, num_levels, num_points)
    pixels = layer.to_pixels(samples.locations)[0, 0]
    best = weights.flatten().topk(min(count, weights.numel()))
    per_head, num_points = weights[0].numel(), weights.shape[2]
    return Points(
        pixels.flatten(0, 2)[best.indices],
        best.values,
        best.indices % per_head // num_points,
        best.indices // per_head,
    )


def strongest_on_level(layer: AttentionLayer, level: int, count: int, head: Optional[int] = None) -> Points:
    """The samples of all queries on one level that have the largest weights, of all heads or one."""
    weights = layer.weights[0, :, :, level]  # (num_queries, num_heads, num_points)
    pixels = layer.to_pixels(layer.locations)[0, :, :, level]
    first = 0
    if head is not None:
        first, weights, pixels = head, weights[:, head : head + 1], pixels[:, head : head + 1]
    best = weights.flatten().topk(min(count, weights.numel()))
    heads = best.indices // weights.shape[2] % weights.shape[1] + first
    return Points(pixels.flatten(0, 2)[best.indices], best.values, torch.full_like(heads, level), heads)
