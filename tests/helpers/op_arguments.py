"""Arguments of the operators and their values by plain loops, written from the papers' definitions."""

import math
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

SHAPES = ((6, 9), (4, 5), (2, 3))


def make_levels(shapes: Sequence[Tuple[int, int]]) -> Tuple[Tensor, Tensor]:
    """``spatial_shapes`` and ``level_start_index`` of levels given by (H, W)."""
    starts = [sum(h * w for h, w in shapes[:level]) for level in range(len(shapes))]
    return torch.tensor(shapes), torch.tensor(starts)


def make_arguments(
    bs: int = 2,
    shapes: Sequence[Tuple[int, int]] = SHAPES,
    num_queries: Optional[int] = 7,
    num_heads: int = 2,
    head_dim: int = 8,
    num_points: int = 2,
    dtype: torch.dtype = torch.float64,
    location_dtype: Optional[torch.dtype] = None,
    boxes: bool = False,
    shared_offsets: bool = False,
    separate_key: bool = False,
    spread: float = 2.0,
    seed: int = 0,
) -> Dict[str, Optional[Tensor]]:
    """Random arguments; ``num_queries=None`` is one query per token and ``spread`` the offsets' deviation."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    spatial_shapes, level_start_index = make_levels(shapes)
    num_value = sum(height * width for height, width in shapes)
    num_queries = num_value if num_queries is None else num_queries
    location_dtype = location_dtype or dtype
    points = torch.rand((bs, num_queries, len(shapes), 4 if boxes else 2), generator=generator, dtype=torch.float64)
    offsets = normal(bs, num_queries, num_heads, 1 if shared_offsets else len(shapes), num_points, 2) * spread
    return dict(
        query=normal(bs, num_queries, num_heads, head_dim).to(dtype),
        value=normal(bs, num_value, num_heads, head_dim).to(dtype),
        spatial_shapes=spatial_shapes,
        level_start_index=level_start_index,
        reference_points=points.to(location_dtype),
        sampling_offsets=offsets.to(location_dtype),
        key=normal(bs, num_value, num_heads, head_dim).to(dtype) if separate_key else None,
    )


DIFFERENTIABLE = ('query', 'value', 'reference_points', 'sampling_offsets', 'key', 'attention_weights')


def give_weights(
    arguments: Dict[str, Optional[Tensor]], weight_dtype: Optional[torch.dtype] = None, seed: int = 2
) -> Dict[str, Optional[Tensor]]:
    """Arguments of multi-scale deformable attention from those of key-aware attention: weights instead of a query."""
    bs, num_queries, num_heads, _, num_points, _ = arguments['sampling_offsets'].shape
    size = (bs, num_queries, num_heads, len(arguments['spatial_shapes']), num_points)
    weights = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights = weights.flatten(3).softmax(-1).view(size)
    others = {name: tensor for name, tensor in arguments.items() if name not in ('query', 'key')}
    return dict(others, attention_weights=weights.to(weight_dtype or arguments['sampling_offsets'].dtype))


def run_with_gradients(
    function, arguments: dict, grad_output: Optional[Tensor] = None, **kwargs
) -> Tuple[Tensor, dict]:
    """Output of ``function`` and the gradients of all differentiable arguments."""
    arguments = dict(arguments)
    for name in DIFFERENTIABLE:
        if arguments.get(name) is not None:
            arguments[name] = arguments[name].detach().requires_grad_()
    output = function(**arguments, **kwargs)
    if grad_output is None:
        generator = torch.Generator().manual_seed(1)
        grad_output = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    names = [name for name in DIFFERENTIABLE if arguments.get(name) is not None]
    grads = torch.autograd.grad(output, [arguments[name] for name in names], grad_output.to(output.dtype))
    return output.detach(), dict(zip(names, grads))


def move_into_cells(arguments: dict) -> dict:
    """Offsets such that each location is at least 0.1 pixels away from the border of a cell, some outside of the map.

    Bilinear interpolation has kinks at these borders, where a finite difference is no derivative.
    """
    sizes = arguments['spatial_shapes'].flip(1).double()  # (num_levels, 2), width first
    reference = arguments['reference_points']
    bs, num_queries, num_levels, _ = reference.shape
    shape = arguments['sampling_offsets'].shape
    target = torch.rand(shape, dtype=torch.float64) * (sizes[:, None] + 2) - 2
    target = target.floor() + 0.1 + 0.8 * torch.rand(shape, dtype=torch.float64)
    scale = torch.ones(bs, num_queries, 1, num_levels, 1, 2, dtype=torch.float64)
    if reference.shape[-1] == 4:
        scale = (reference[..., 2:] * sizes * 0.5 / shape[4])[:, :, None, :, None]
    centre = (reference[..., :2] * sizes - 0.5)[:, :, None, :, None]
    return dict(arguments, sampling_offsets=(target - centre) / scale)


def _bilinear(row: List[List[float]], height: int, width: int, start: int, x: float, y: float) -> List[float]:
    """Interpolate between the four pixels around (x, y); pixels that do not exist are zero."""
    result = [0.0] * len(row[0]) if row else []
    if not (math.isfinite(x) and math.isfinite(y)):
        return result
    for py in (math.floor(y), math.floor(y) + 1):
        for px in (math.floor(x), math.floor(x) + 1):
            if 0 <= px < width and 0 <= py < height:
                weight = (1 - abs(x - px)) * (1 - abs(y - py))
                pixel = row[start + py * width + px]
                result = [r + weight * p for r, p in zip(result, pixel)]
    return result


def naive_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    query: Optional[Tensor] = None,
    key: Optional[Tensor] = None,
    attention_weights: Optional[Tensor] = None,
) -> Tensor:
    """Deformable attention, key-aware or with given weights, by loops over everything in Python's float64."""
    bs, _, num_heads, head_dim = value.shape
    num_queries = sampling_offsets.shape[1]
    num_points = sampling_offsets.shape[4]
    output = torch.zeros(bs, num_queries, num_heads, head_dim, dtype=torch.float64)
    for b in range(bs):
        for h in range(num_heads):
            values = value[b, :, h].double().tolist()
            keys = values if key is None else key[b, :, h].double().tolist()
            for q in range(num_queries):
                sampled_values, logits = [], []
                query_vector = [0.0] * head_dim if query is None else query[b, q, h].double().tolist()
                for level, (height, width) in enumerate(spatial_shapes.tolist()):
                    reference = reference_points[b, q, level].double().tolist()
                    offsets = sampling_offsets[b, q, h, level if sampling_offsets.shape[3] > 1 else 0]
                    for offset_x, offset_y in offsets.double().tolist():
                        if len(reference) == 2:  # offsets count pixels
                            x = reference[0] * width + offset_x - 0.5
                            y = reference[1] * height + offset_y - 0.5
                        else:  # offsets count half boxes, divided by the number of points
                            x = (reference[0] + offset_x / num_points * reference[2] * 0.5) * width - 0.5
                            y = (reference[1] + offset_y / num_points * reference[3] * 0.5) * height - 0.5
                        start = int(level_start_index[level])
                        sampled_values.append(_bilinear(values, height, width, start, x, y))
                        sampled_key = _bilinear(keys, height, width, start, x, y)
                        logits.append(sum(a * k for a, k in zip(query_vector, sampled_key)) / math.sqrt(head_dim))
                weights = [math.exp(logit - max(logits)) for logit in logits]
                weights = [weight / sum(weights) for weight in weights]
                if attention_weights is not None:
                    weights = attention_weights[b, q, h].double().flatten().tolist()
                for weight, sampled in zip(weights, sampled_values):
                    if sampled:
                        output[b, q, h] += weight * torch.tensor(sampled, dtype=torch.float64)
    return output.flatten(2)
