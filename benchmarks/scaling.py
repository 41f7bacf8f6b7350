#!/usr/bin/env python
"""Time and memory against the number of tokens: operator, encoder and detector of Lite-DINO, beside stock DINO and
RT-DETR; the slope in log-log scale is fitted. Draws OUT.svg and writes OUT.json.

    python benchmarks/scaling.py --out benchmarks/results/cpu_scaling
    python benchmarks/scaling.py --out benchmarks/results/cpu_scaling --series DINO RT-DETR

Sizes are of images 4:3, levels those of encoders with 3, 4 and 5, batches of small images. Weights are random. With
``--series`` only these are measured, and take their place among those that OUT.json holds already.
"""

import argparse
import json
import math
import sys
from functools import cache
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

import torch
from detectors import measure_calls, set_up

import lite_detr_mmdet  # noqa: F401  before mmdet
from lite_detr_mmdet.analysis.environment import describe_environment

# isort: split
from mmdet.registry import MODELS
from mmengine.config import Config
from rt_detr import rt_detr_calls

from lite_detr_mmdet.acceleration import accelerate
from lite_detr_mmdet.analysis.calls import build_model, detector_call, make_batch
from lite_detr_mmdet.analysis.records import Record
from lite_detr_mmdet.ops import key_aware_deform_attn
from lite_detr_mmdet.utils import existing_config

LITE = 'lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco'
DINO = 'mmdet::dino/dino-4scale_r50_8xb2-36e_coco.py'


class Point(NamedTuple):
    """What a call works on."""

    shape: Tuple[int, int]
    batch_size: int = 1
    num_levels: int = 4

    @property
    def level_shapes(self) -> List[Tuple[int, int]]:
        """Heights and widths of feature levels of strides 8, 16, ...; of 4, 8, ... with five of them."""
        first = 4 if self.num_levels == 5 else 8
        return [tuple(math.ceil(size / (first * 2**level)) for size in self.shape) for level in range(self.num_levels)]

    @property
    def num_tokens(self) -> int:
        """Tokens of the batch."""
        return self.batch_size * sum(height * width for height, width in self.level_shapes)


IMAGES = [Point((width * 3 // 4, width)) for width in (320, 640, 960, 1280, 1600)]
BATCHES = [Point((240, 320), batch_size) for batch_size in (1, 2, 4, 8, 16)]


def operator_call(point: Point) -> Callable:
    """A call of the operator, each token a query."""
    shapes = torch.tensor(point.level_shapes)
    sizes = shapes.prod(1)
    count = int(sizes.sum())
    query, value = torch.randn(point.batch_size, count, 8, 32), torch.randn(point.batch_size, count, 8, 32)
    centres = [torch.cartesian_prod((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w) for h, w in shapes]
    reference_points = torch.cat(centres).flip(1)[None, :, None].expand(point.batch_size, -1, 4, -1).contiguous()
    offsets = 2 * torch.randn(point.batch_size, count, 8, 4, 4, 2)
    return lambda: key_aware_deform_attn(query, value, shapes, sizes.cumsum(0) - sizes, reference_points, offsets)


@cache
def make_encoder(num_levels: int) -> torch.nn.Module:
    """An accelerated encoder of Lite-DINO with this number of levels."""
    cfg = Config.fromfile(existing_config(LITE)).model.encoder
    cfg.layer_cfg.self_attn_cfg.num_levels = num_levels
    return accelerate(MODELS.build(cfg).eval(), verbose=False)


@cache
def make_lite() -> torch.nn.Module:
    """An accelerated Lite-DINO."""
    return accelerate(build_model(existing_config(LITE), 'cpu'), verbose=False)


@cache
def make_dino() -> torch.nn.Module:
    """DINO as installed."""
    return build_model(existing_config(DINO), 'cpu')


def encoder_call(point: Point) -> Callable:
    """A call of an encoder on random tokens."""
    encoder = make_encoder(point.num_levels)
    spatial_shapes = torch.tensor(point.level_shapes)
    sizes = spatial_shapes.prod(1)
    tokens = torch.randn(point.batch_size, int(sizes.sum()), 256)
    inputs = dict(
        query=tokens,
        query_pos=torch.randn(1, *tokens.shape[1:]).expand_as(tokens),
        key_padding_mask=None,
        spatial_shapes=spatial_shapes,
        level_start_index=sizes.cumsum(0) - sizes,
        valid_ratios=torch.ones(point.batch_size, point.num_levels, 2),
        level_shapes=point.level_shapes,
    )

    def run() -> None:
        with torch.inference_mode():
            encoder(**inputs)

    return run


def lite_call(point: Point) -> Callable:
    """A call of Lite-DINO, to boxes."""
    return detector_call(make_lite(), make_batch(point.batch_size, list(point.shape), 'cpu'))


def dino_call(point: Point) -> Callable:
    """A call of stock DINO, to boxes."""
    return detector_call(make_dino(), make_batch(point.batch_size, list(point.shape), 'cpu'))


def rt_detr_call(point: Point) -> Callable:
    """A call of RT-DETR, as installed."""
    inputs = make_batch(point.batch_size, list(point.shape), 'cpu')['inputs']
    return next(iter(rt_detr_calls(inputs, torch.no_grad).values()))


class Series(NamedTuple):
    """Calls that a line of the plot joins."""

    call: Callable[[Point], Callable]
    points: Sequence[Point] = IMAGES
    threads: int = 2


SERIES = {
    'operator': Series(operator_call),
    'encoder': Series(encoder_call),
    'Lite-DINO': Series(lite_call),
    'Lite-DINO, batches of 320 x 240': Series(lite_call, BATCHES),
    'encoder, 3 levels': Series(encoder_call, [Point(point.shape, 1, 3) for point in IMAGES]),
    'encoder, 5 levels': Series(encoder_call, [Point(point.shape, 1, 5) for point in IMAGES[::2]]),
    'operator, 1 thread': Series(operator_call, threads=1),
    'encoder, 1 thread': Series(encoder_call, threads=1),
    'Lite-DINO, 1 thread': Series(lite_call, threads=1),
    'RT-DETR': Series(rt_detr_call),
    'DINO': Series(dino_call),
}


def slope(points: List[dict], key: str) -> float:
    """Slope of a line through points in log-log scale: 1 is linear."""
    x = torch.tensor([math.log(point['tokens']) for point in points], dtype=torch.float64)
    y = torch.tensor([math.log(point[key]) for point in points], dtype=torch.float64)
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def draw(series: Dict[str, List[dict]], path: str) -> None:
    """Draw time and memory against tokens."""
    import matplotlib

    matplotlib.use('svg')
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 6.5), layout='constrained')
    for index, (name, points) in enumerate(series.items()):
        style = '--' if name in ('DINO', 'RT-DETR') else ':' if name.endswith('thread') else '-'
        for axis, key, unit in ((axes[0], 'median_s', 1), (axes[1], 'peak_bytes', 1e6)):
            if key == 'peak_bytes' and name.endswith('thread'):
                continue  # as with two
            axis.plot(
                [point['tokens'] for point in points],
                [point[key] / unit for point in points],
                style,
                color=f'C{index % 10}' if index < 10 else 'black',
                marker='osD^vPX*<>h'[index],
                markersize=4,
                linewidth=1.2,
                label=f'{name} ({slope(points, key):.2f})',
            )
    for axis, title in ((axes[0], 'seconds a call'), (axes[1], 'peak memory of a call, MB')):
        axis.set(xscale='log', yscale='log', xlabel='tokens of all images', title=f'{title} (slope)')
        axis.grid(True, which='both', alpha=0.25)
        axis.legend(fontsize=7, ncols=3, loc='upper center', bbox_to_anchor=(0.5, -0.1))
    figure.savefig(path, metadata=dict(Date=None))


def measure_series(name: str, repeat: int) -> List[dict]:
    """Time and peak memory of the points of a series."""
    series, points = SERIES[name], []
    torch.set_num_threads(series.threads)
    for point in series.points:
        (row,) = measure_calls({name: series.call(point)}, repeat, 'cpu')
        del row['config']
        points.append(dict(shape=point.shape, batch_size=point.batch_size, tokens=point.num_tokens, **row))
        print(name, points[-1], file=sys.stderr, flush=True)
    return points


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--series', nargs='+', choices=list(SERIES), default=list(SERIES), metavar='NAME')
    parser.add_argument('--repeat', type=int, default=2, help='timed rounds of a point (default: %(default)s)')
    parser.add_argument('--avx2', action='store_true', help='restart with all libraries limited to AVX2')
    parser.add_argument('--keep-pages', action='store_true', help='restart with a glibc that keeps the pages it frees')
    parser.add_argument('--out', default='work_dirs/scaling')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    set_up(args)
    record = Path(f'{args.out}.json')
    partial = set(args.series) != set(SERIES) and record.exists()
    measured = json.loads(record.read_text())['results']['series'] if partial else {}
    measured.update({name: measure_series(name, args.repeat) for name in args.series})
    measured = {name: measured[name] for name in SERIES if name in measured}
    slopes = {
        name: {key: slope(points, key) for key in ('median_s', 'peak_bytes')} for name, points in measured.items()
    }
    record.parent.mkdir(parents=True, exist_ok=True)
    Record(
        'scaling',
        describe_environment('cpu', 'transformers'),
        dict(series=measured, slopes=slopes),
        dtype='float32',
        repeat=args.repeat,
        settings=dict(avx2=True) if args.avx2 else {},
    ).write(str(record))
    draw(measured, f'{args.out}.svg')


if __name__ == '__main__':
    main()
