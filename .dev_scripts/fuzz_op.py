#!/usr/bin/env python
"""Call the operator with random arguments, forward and backward, and compare it with an independent form in numpy.

    python .dev_scripts/fuzz_op.py [--calls 10000] [--seed 0]

The form below shares nothing with the package: it follows the definition (Lite DETR, Sec. 3.6), sample by sample, and
its gradients are derived by hand. Everything is float64. Fails with the arguments of the first call that differs.
"""

import argparse
import time
from typing import Dict, List, Tuple

import numpy as np
import torch

from lite_detr_mmdet.ops import key_aware_deform_attn

TOLERANCE = 1e-9  # relative L2, of sums of up to some hundred terms


def draw(rng: np.random.Generator) -> dict:
    """Arguments of a call as numpy arrays."""
    shapes = [tuple(rng.integers(1, 8, 2)) for _ in range(rng.integers(1, 5))]
    bs, queries, heads, points = (int(rng.integers(low, high)) for low, high in ((1, 3), (1, 9), (1, 4), (1, 5)))
    dim = int(rng.choice([1, 3, 8, 16, 32]))
    total = sum(h * w for h, w in shapes)
    boxes, shared, separate = rng.random(3) < 0.4
    return dict(
        query=rng.normal(size=(bs, queries, heads, dim)),
        value=rng.normal(size=(bs, total, heads, dim)),
        shapes=shapes,
        reference_points=rng.random((bs, queries, len(shapes), 4 if boxes else 2)),
        sampling_offsets=rng.normal(size=(bs, queries, heads, 1 if shared else len(shapes), points, 2))
        * rng.choice([0.3, 2.0, 20.0]),
        key=rng.normal(size=(bs, total, heads, dim)) if separate else None,
    )


def sample(
    maps: np.ndarray, shape: Tuple[int, int], x: float, y: float
) -> Tuple[np.ndarray, List[Tuple[int, float, float, float]]]:
    """Value of a map at a point, and of each pixel around it: its index, its weight and that weight's slopes."""
    height, width = shape
    left, top = int(np.floor(x)), int(np.floor(y))
    value, pixels = np.zeros(maps.shape[-1]), []
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                across, down = 1 - abs(x - column), 1 - abs(y - row)
                slope_x = -down if column == left else down
                slope_y = -across if row == top else across
                index = row * width + column
                value = value + across * down * maps[index]
                pixels.append((index, across * down, slope_x, slope_y))
    return value, pixels


def expected(arguments: dict, grad_output: np.ndarray) -> Tuple[np.ndarray, Dict[str, np.ndarray]]:
    """Output and gradients."""
    query, value, reference, offsets = (
        arguments[name] for name in ('query', 'value', 'reference_points', 'sampling_offsets')
    )
    separate = arguments['key'] is not None
    key = arguments['key'] if separate else value
    names = ('query', 'value', 'reference_points', 'sampling_offsets', *(('key',) if separate else ()))
    grads = {name: np.zeros_like(arguments[name]) for name in names}
    bs, num_queries, heads, dim = query.shape
    points = offsets.shape[4]
    starts = np.cumsum([0, *(h * w for h, w in arguments['shapes'])])
    output = np.zeros((bs, num_queries, heads, dim))
    for b, q, m in np.ndindex(bs, num_queries, heads):
        samples = []
        for level, (height, width) in enumerate(arguments['shapes']):
            stored = 0 if offsets.shape[3] == 1 else level
            center = reference[b, q, level]
            for point in range(points):
                dx, dy = offsets[b, q, m, stored, point]
                if len(center) == 2:
                    x, y = center[0] * width + dx, center[1] * height + dy
                    scale = (1.0, 1.0)
                else:  # offsets of a box are parts of half its size
                    scale = (center[2] * 0.5 * width / points, center[3] * 0.5 * height / points)
                    x, y = center[0] * width + dx * scale[0], center[1] * height + dy * scale[1]
                region = slice(starts[level], starts[level + 1])
                found_value, pixels = sample(value[b, region, m], (height, width), x - 0.5, y - 0.5)
                found_key, _ = sample(key[b, region, m], (height, width), x - 0.5, y - 0.5)
                samples.append((level, stored, point, scale, (dx, dy), pixels, found_value, found_key))
        values = np.stack([item[6] for item in samples])
        keys = np.stack([item[7] for item in samples])
        logits = keys @ query[b, q, m] / np.sqrt(dim)
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
        output[b, q, m] = weights @ values

        grad = grad_output[b, q, m]
        grad_weights = values @ grad
        grad_logits = weights * (grad_weights - weights @ grad_weights) / np.sqrt(dim)
        grads['query'][b, q, m] += grad_logits @ keys
        for index, (level, stored, point, scale, offset, pixels, _, _) in enumerate(samples):
            height, width = arguments['shapes'][level]
            grad_value, grad_key = weights[index] * grad, grad_logits[index] * query[b, q, m]
            grad_x = grad_y = 0.0
            for pixel, weight, slope_x, slope_y in pixels:
                position = starts[level] + pixel
                grads['value'][b, position, m] += weight * grad_value
                grads['key' if separate else 'value'][b, position, m] += weight * grad_key
                along = grad_value @ value[b, position, m] + grad_key @ key[b, position, m]
                grad_x += slope_x * along
                grad_y += slope_y * along
            grads['sampling_offsets'][b, q, m, stored, point] += (grad_x * scale[0], grad_y * scale[1])
            grads['reference_points'][b, q, level, :2] += (grad_x * width, grad_y * height)
            if reference.shape[-1] == 4:
                sizes = (grad_x * offset[0] * 0.5 * width / points, grad_y * offset[1] * 0.5 * height / points)
                grads['reference_points'][b, q, level, 2:] += sizes
    return output.reshape(bs, num_queries, heads * dim), grads


def compare(arguments: dict, rng: np.random.Generator) -> float:
    """Largest relative difference of a call and its gradients."""
    tensors = {
        name: torch.from_numpy(value).requires_grad_() if isinstance(value, np.ndarray) else value
        for name, value in arguments.items()
        if name != 'shapes'
    }
    sizes = [height * width for height, width in arguments['shapes']]
    output = key_aware_deform_attn(
        spatial_shapes=torch.tensor(np.array(arguments['shapes'])),
        level_start_index=torch.tensor(np.cumsum([0, *sizes[:-1]])),
        backend='fused',
        **tensors,
    )
    bs, queries, heads, dim = arguments['query'].shape
    grad_output = rng.normal(size=(bs, queries, heads, dim))
    output.backward(torch.from_numpy(grad_output.reshape(bs, queries, heads * dim)))
    wanted, grads = expected(arguments, grad_output)
    pairs = [(output.detach().numpy(), wanted)]
    pairs += [(tensors[name].grad.numpy(), grad) for name, grad in grads.items()]
    return max(float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3)) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--calls', type=int, default=10_000, help='number of calls (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='first seed (default: %(default)s)')
    args = parser.parse_args()
    torch.set_num_threads(1)
    start, worst = time.perf_counter(), 0.0
    for seed in range(args.seed, args.seed + args.calls):
        rng = np.random.default_rng(seed)
        arguments = draw(rng)
        difference = compare(arguments, rng)
        worst = max(worst, difference)
        if not difference < TOLERANCE:
            shapes = {name: np.shape(value) for name, value in arguments.items()}
            raise SystemExit(f'seed {seed} differs by {difference:.2e}: {shapes}')
    seconds = time.perf_counter() - start
    print(f'{args.calls} calls, forward and backward: largest relative difference {worst:.1e}, {seconds:.0f} s')


if __name__ == '__main__':
    main()
