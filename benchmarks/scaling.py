#!/usr/bin/env python
"""Time and memory against the number of tokens: operator, encoder and detector of Lite-DINO, beside stock DINO and
RT-DETR; the slope in log-log scale is fitted. Draws OUT.svg and writes OUT.json.

    python benchmarks/scaling.py --out benchmarks/results/cpu_scaling

Sizes are of images 4:3, levels those of encoders with 3, 4 and 5, batches of small images. Weights are random.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import torch
from detectors import limit_to_avx2
from environment import describe_environment, keep_pages

import lite_detr_mmdet  # noqa: F401  before mmdet

# isort: split
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MMLogger
from records import Record
from rt_detr import rt_detr_calls

from lite_detr_mmdet.acceleration import accelerate
from lite_detr_mmdet.analysis.calls import build_model, detector_call, make_batch
from lite_detr_mmdet.ops import key_aware_deform_attn
from lite_detr_mmdet.timing import measure_peak_bytes, time_interleaved
from lite_detr_mmdet.utils import existing_config

LITE = 'lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco'
DINO = 'mmdet::dino/dino-4scale_r50_8xb2-36e_coco.py'
WIDTHS = (320, 640, 960, 1280, 1600)
BATCHES = (1, 2, 4, 8, 16)
SMALL = (240, 320)


def level_shapes(shape: Tuple[int, int], num_levels: int = 4) -> List[Tuple[int, int]]:
    """Heights and widths of feature levels of strides 8, 16, ...; of 4, 8, ... with five of them."""
    first = 4 if num_levels == 5 else 8
    return [tuple(math.ceil(size / (first * 2**level)) for size in shape) for level in range(num_levels)]


def num_tokens(shape: Tuple[int, int], batch_size: int, num_levels: int = 4) -> int:
    """Tokens of a batch."""
    return batch_size * sum(height * width for height, width in level_shapes(shape, num_levels))


def operator_call(shape: Tuple[int, int], batch_size: int) -> Callable:
    """A call of the operator, each token a query."""
    shapes = torch.tensor(level_shapes(shape))
    sizes = shapes.prod(1)
    count = int(sizes.sum())
    query, value = torch.randn(batch_size, count, 8, 32), torch.randn(batch_size, count, 8, 32)
    centres = [torch.cartesian_prod((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w) for h, w in shapes]
    reference_points = torch.cat(centres).flip(1)[None, :, None].expand(batch_size, -1, 4, -1).contiguous()
    offsets = 2 * torch.randn(batch_size, count, 8, 4, 4, 2)
    return lambda: key_aware_deform_attn(query, value, shapes, sizes.cumsum(0) - sizes, reference_points, offsets)


def make_encoder(num_levels: int = 4) -> torch.nn.Module:
    """An accelerated encoder of Lite-DINO with this number of levels."""
    cfg = Config.fromfile(existing_config(LITE)).model.encoder
    cfg.layer_cfg.self_attn_cfg.num_levels = num_levels
    return accelerate(MODELS.build(cfg).eval(), verbose=False)


def encoder_call(encoder: torch.nn.Module, shape: Tuple[int, int], batch_size: int, num_levels: int = 4) -> Callable:
    """A call of an encoder on random tokens."""
    shapes = level_shapes(shape, num_levels)
    spatial_shapes = torch.tensor(shapes)
    sizes = spatial_shapes.prod(1)
    tokens = torch.randn(batch_size, int(sizes.sum()), 256)
    inputs = dict(
        query=tokens,
        query_pos=torch.randn(1, *tokens.shape[1:]).expand_as(tokens),
        key_padding_mask=None,
        spatial_shapes=spatial_shapes,
        level_start_index=sizes.cumsum(0) - sizes,
        valid_ratios=torch.ones(batch_size, num_levels, 2),
        level_shapes=shapes,
    )

    def run() -> None:
        with torch.inference_mode():
            encoder(**inputs)

    return run


def slope(points: List[dict], key: str) -> float:
    """Slope of a line through points in log-log scale: 1 is linear."""
    x = torch.tensor([math.log(point['tokens']) for point in points], dtype=torch.float64)
    y = torch.tensor([math.log(max(point[key], 1)) if key != 's' else math.log(point[key]) for point in points])
    x, y = x - x.mean(), y.double() - y.double().mean()
    return float((x * y).sum() / (x * x).sum())


def draw(series: Dict[str, List[dict]], path: str) -> None:
    """Draw time and memory against tokens."""
    import matplotlib

    matplotlib.use('svg')
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout='constrained')
    for (name, points), marker in zip(series.items(), 'osD^vPX*<>h'):
        points = sorted(points, key=lambda point: point['tokens'])
        style = '--' if name.startswith(('DINO', 'RT')) else '-'
        for axis, key, unit in ((axes[0], 's', 1), (axes[1], 'peak_bytes', 1e6)):
            values = [point[key] / unit for point in points]
            label = f'{name} ({slope(points, key):.2f})'
            tokens = [point['tokens'] for point in points]
            axis.plot(tokens, values, style, marker=marker, markersize=4, linewidth=1.2, label=label)
    for axis, title in ((axes[0], 'seconds a call'), (axes[1], 'peak memory of a call, MB')):
        axis.set(xscale='log', yscale='log', xlabel='tokens of all images', title=f'{title} (slope)')
        axis.grid(True, which='both', alpha=0.25)
        axis.legend(fontsize=7)
    figure.savefig(path, metadata=dict(Date=None))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeat', type=int, default=2, help='timed rounds of a point (default: %(default)s)')
    parser.add_argument('--avx2', action='store_true', help='restart with all libraries limited to AVX2')
    parser.add_argument('--keep-pages', action='store_true', help='restart with a glibc that keeps the pages it frees')
    parser.add_argument('--without-peers', action='store_true', help='leave out stock DINO and RT-DETR')
    parser.add_argument('--out', default='work_dirs/scaling')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.keep_pages:
        keep_pages()
    if args.avx2:
        limit_to_avx2()
    register_all_modules()
    MMLogger.get_instance('mmengine').setLevel('ERROR')
    series: Dict[str, List[dict]] = {}

    def measure(
        name: str, call: Callable, shape: Tuple[int, int], batch: int, levels: int = 4, repeat: int = 0
    ) -> None:
        seconds = time_interleaved({name: call}, repeat or args.repeat, 'cpu')[name]
        point = dict(shape=list(shape), batch_size=batch, tokens=num_tokens(shape, batch, levels), s=min(seconds))
        series.setdefault(name, []).append({**point, 'peak_bytes': measure_peak_bytes(call, 'cpu')})
        print(name, point, file=sys.stderr, flush=True)

    lite, dino = accelerate(build_model(existing_config(LITE), 'cpu'), verbose=False), None
    encoders = {levels: make_encoder(levels) for levels in (3, 4, 5)}
    if not args.without_peers:
        dino = build_model(existing_config(DINO), 'cpu')
    for threads in (2, 1):
        torch.set_num_threads(threads)
        suffix = '' if threads == 2 else ', 1 thread'
        for width in WIDTHS:
            shape = (width * 3 // 4, width)
            batch = make_batch(1, list(shape), 'cpu')
            measure(f'operator{suffix}', operator_call(shape, 1), shape, 1)
            measure(f'encoder{suffix}', encoder_call(encoders[4], shape, 1), shape, 1)
            measure(f'Lite-DINO{suffix}', detector_call(lite, batch), shape, 1)
            if threads == 2 and dino is not None:
                measure('DINO as installed', detector_call(dino, batch), shape, 1, repeat=1)
                call = next(iter(rt_detr_calls(batch['inputs'], torch.no_grad).values()))
                measure('RT-DETR as installed', call, shape, 1, repeat=1)
    torch.set_num_threads(2)
    for batch_size in BATCHES:
        batch = make_batch(batch_size, list(SMALL), 'cpu')
        measure('Lite-DINO, batches of 320 x 240', detector_call(lite, batch), SMALL, batch_size)
    for levels in (3, 5):
        for width in WIDTHS[:: 2 if levels == 5 else 1]:
            shape = (width * 3 // 4, width)
            measure(f'encoder, {levels} levels', encoder_call(encoders[levels], shape, 1, levels), shape, 1, levels)
    results = dict(
        series=series,
        slopes={name: {key: slope(points, key) for key in ('s', 'peak_bytes')} for name, points in series.items()},
    )
    settings = {name: True for name in ('avx2', 'without_peers') if getattr(args, name)}
    Record(
        'scaling',
        describe_environment('cpu', 'transformers'),
        results,
        dtype='float32',
        repeat=args.repeat,
        settings=settings,
    ).write(f'{args.out}.json')
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    draw(series, f'{args.out}.svg')


if __name__ == '__main__':
    main()
