"""Arguments of key-aware deformable attention and its value by plain loops, written from the paper's definition."""

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


DIFFERENTIABLE = ('query', 'value', 'reference_points', 'sampling_offsets', 'key')


def run_with_gradients(
    function, arguments: dict, grad_output: Optional[Tensor] = None, **kwargs
) -> Tuple[Tensor, dict]:
    """Output of ``function`` and the gradients of all differentiable arguments."""
    arguments = dict(arguments)
    for name in DIFFERENTIABLE:
        if arguments[name] is not None:
            arguments[name] = arguments[name].detach().requires_grad_()
    output = function(**arguments, **kwargs)
    if grad_output is None:
        generator = torch.Generator().manual_seed(1)
        grad_output = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    names = [name for name in DIFFERENTIABLE if arguments[name] is not None]
    grads = torch.autograd.grad(output, [arguments[name] for name in names], grad_output.to(output.dtype))
    return output.detach(), dict(zip(names, grads))


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


def naive_key_aware_deform_attn(
    query: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Optional[Tensor] = None,
) -> Tensor:
    """Key-aware deformable attention by loops over everything, in Python's float64."""
    bs, num_queries, num_heads, head_dim = query.shape
    num_points = sampling_offsets.shape[4]
    output = torch.zeros(bs, num_queries, num_heads, head_dim, dtype=torch.float64)
    for b in range(bs):
        for h in range(num_heads):
            values = value[b, :, h].double().tolist()
            keys = values if key is None else key[b, :, h].double().tolist()
            for q in range(num_queries):
                sampled_values, logits = [], []
                query_vector = query[b, q, h].double().tolist()
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
                for weight, sampled in zip(weights, sampled_values):
                    if sampled:
                        output[b, q, h] += weight / sum(weights) * torch.tensor(sampled, dtype=torch.float64)
    return output.flatten(2)
