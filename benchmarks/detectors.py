#!/usr/bin/env python
"""Time encoders and whole detectors of several configs in one process, interleaved, and report ratios.

    python benchmarks/detectors.py CONFIG [CONFIG...] --shape 800 1333 --repeat 5 --out benchmarks/results/cpu
    python benchmarks/detectors.py CONFIG [CONFIG...] --accelerate float32 --rt-detr --avx2
    python benchmarks/detectors.py CONFIG [CONFIG...] --device cuda --dtype bfloat16 --batch-size 16 --parts training

Configs are named as for every command: a file, a model of this package, or mmdet::dino/....

Weights are random: time does not depend on them. The first config is the baseline of the ratios. The encoder is timed
on the inputs that the detector gives it; the detector from a normalised image in memory to boxes; training from there
through loss, backward and AdamW. The peak memory of a call is what torch allocates at once, beyond weights and
optimizer state.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import Dict, List

import torch

import lite_detr_mmdet  # noqa: F401  before mmdet
from lite_detr_mmdet.analysis.environment import describe_environment, keep_pages

# isort: split
from mmdet.utils import register_all_modules
from mmengine.logging import MMLogger
from rt_detr import rt_detr_calls
from torch import Tensor, nn

from lite_detr_mmdet.acceleration import accelerate
from lite_detr_mmdet.analysis.calls import CALLS, build_model, make_batch, prediction_error
from lite_detr_mmdet.analysis.detector_timing import measure_calls
from lite_detr_mmdet.analysis.records import Record
from lite_detr_mmdet.models.layers import swap_attention
from lite_detr_mmdet.output_files import output_pair
from lite_detr_mmdet.utils import existing_config

# Limits of the instruction sets of torch, oneDNN, MKL and this package's operators, which they read at start.
AVX2 = dict(
    ATEN_CPU_CAPABILITY='avx2',
    ONEDNN_MAX_CPU_ISA='AVX2',
    MKL_ENABLE_INSTRUCTIONS='AVX2',
    LITE_DETR_CPU_CAPABILITY='avx2',
)


def run_mmcv_in_float32() -> None:
    """Let mmcv's CUDA operators, which know no bfloat16, convert to and from float32, as users of it have to."""
    from mmcv.ops import multi_scale_deform_attn
    from mmdet.models.losses import focal_loss

    function = multi_scale_deform_attn.MultiScaleDeformableAttnFunction
    sigmoid_focal_loss = focal_loss._sigmoid_focal_loss

    class InFloat32:
        @staticmethod
        def apply(value: Tensor, *args) -> Tensor:
            return function.apply(value.float(), *args).to(value.dtype)

    multi_scale_deform_attn.MultiScaleDeformableAttnFunction = InFloat32
    focal_loss._sigmoid_focal_loss = lambda pred, *args: sigmoid_focal_loss(pred.float(), *args)


def make_record(args: argparse.Namespace, rows: List[dict]) -> Record:
    """The record of a run with these arguments."""
    names = ('accelerate', 'avx2', 'compile', 'fused_attention', 'threads')
    settings = {name: getattr(args, name) for name in names if getattr(args, name)}
    return Record(
        benchmark='detectors',
        environment=describe_environment(args.device, *(['transformers'] if args.rt_detr else [])),
        results=rows,
        shape=tuple(args.shape),
        batch_size=args.batch_size,
        dtype=args.dtype,
        repeat=args.repeat,
        settings=settings,
    )


def set_up(args: argparse.Namespace) -> None:
    """Restart with the settings of the allocator and the instruction sets asked for, and register all modules."""
    if args.keep_pages:
        keep_pages()
    if args.avx2:
        limit_to_avx2()
    register_all_modules()
    MMLogger.get_instance('mmengine').setLevel('ERROR')  # not a line for each weight that is initialised


def measure_errors(models: Dict[str, nn.Module], batch: dict) -> Dict[str, Dict[str, float]]:
    """How far accelerated detectors are from the same ones as they are."""
    for model in models.values():  # box branches start at zero: no error would show
        torch.manual_seed(0)
        for branch in model.bbox_head.reg_branches:
            nn.init.normal_(branch[-1].weight, std=0.02)
    return {
        name: prediction_error(model.eval(), models[name.partition(',')[0]].eval(), batch)
        for name, model in models.items()
        if ', accelerated' in name
    }


def limit_to_avx2() -> None:
    """Start this program again with the limits of ``AVX2``, unless they are set already."""
    if any(os.environ.get(name) != value for name, value in AVX2.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **AVX2})


def build_models(args: argparse.Namespace) -> Dict[str, nn.Module]:
    """The detectors of the configs, and those that are accelerated for each dtype asked for."""
    models = {}
    for config in args.configs:
        name = Path(config).stem
        if not args.only_accelerated or config == args.configs[0]:
            models[name] = build_model(config, args.device)
        if args.fused_attention and config == args.configs[0]:
            models[f'{name}, fused attention'] = build_model(config, args.device)
            swap_attention(models[f'{name}, fused attention'])
        for dtype in args.accelerate or ():
            label = 'accelerated' if dtype == 'float32' else f'accelerated, {dtype}'
            models[f'{name}, {label}'] = accelerate(build_model(config, args.device), dtype, verbose=False)
    if args.compile:
        for model in models.values():
            model.encoder.compile(mode=args.compile)
    return models


def write_results(out: Path, record: Record) -> None:
    """Write ``out``.json and ``out``.md."""
    lines = ['| config | part | median s | min s | speed-up over the first | peak GB |', '| --- ' * 6 + '|']
    for row in record.results:
        speedup = '-' if row['speedup'] is None else f'{row["speedup"]:.2f}x'
        peak = '' if row['peak_bytes'] is None else f'{row["peak_bytes"] / 1e9:.2f}'
        times = f'{row["median_s"]:.4f} | {row["min_s"]:.4f}'
        lines.append(f'| {row["config"]} | {row["part"]} | {times} | {speedup} | {peak} |')
    errors = [(row['config'], row['error']) for row in record.results if row.get('error')]
    if errors:
        lines += ['', '| config | largest (mean) error of boxes, px | of scores |', '| --- ' * 3 + '|']
    for name, error in errors:
        boxes = f'{error["max_box_error_px"]:.2g} ({error["mean_box_error_px"]:.2g})'
        scores = f'{error["max_score_error"]:.2g} ({error["mean_score_error"]:.2g})'
        lines.append(f'| {name} | {boxes} | {scores} |')
    lines += ['', *record.lines()]
    page = '\n'.join(lines)
    record.write_pair(out, page)
    print(page)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'configs', nargs='+', type=existing_config, help='config files or names of models; the first is the baseline'
    )
    parser.add_argument('--shape', nargs=2, type=int, default=[800, 1333], metavar=('H', 'W'))
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--repeat', type=int, default=5, help='timed rounds (default: %(default)s)')
    parser.add_argument('--parts', nargs='+', choices=tuple(CALLS), default=['encoder', 'detector'])
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--dtype', choices=['float32', 'float16', 'bfloat16'], default='float32', help='of autocast')
    parser.add_argument(
        '--compile', choices=['default', 'reduce-overhead'], help='torch.compile of the encoders, in this mode'
    )
    parser.add_argument(
        '--accelerate',
        nargs='+',
        choices=['float32', 'bfloat16'],
        help='time accelerated detectors of these dtypes as well, and such forms of RT-DETR',
    )
    parser.add_argument(
        '--only-accelerated', action='store_true', help='time the first config alone as it is, the others accelerated'
    )
    parser.add_argument(
        '--fused-attention',
        action='store_true',
        help="time the first config with its ordinary attention on this package's operator as well, and nothing else "
        'changed: what a Lite encoder saves beside it is the saving of the method',
    )
    parser.add_argument('--avx2', action='store_true', help='restart with all libraries limited to AVX2')
    parser.add_argument('--threads', type=int, help='CPU threads (default: all)')
    parser.add_argument('--keep-pages', action='store_true', help='restart with a glibc that keeps the pages it frees')
    parser.add_argument('--rt-detr', action='store_true', help='time RT-DETR of the transformers library as well')
    parser.add_argument(
        '--out',
        type=output_pair,
        default='work_dirs/benchmark_detectors',
        help='write OUT.json and OUT.md (default: %(default)s)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    set_up(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    device_type = args.device.partition(':')[0]
    if args.dtype == 'bfloat16' and device_type == 'cuda':
        run_mmcv_in_float32()
    dtype = None if args.dtype == 'float32' else getattr(torch, args.dtype)
    autocast = partial(torch.autocast, device_type, dtype, enabled=dtype is not None)
    batch = make_batch(args.batch_size, args.shape, args.device)
    models = build_models(args)
    rows = []
    for part in args.parts:
        calls = {name: CALLS[part](model, batch, autocast) for name, model in models.items()}
        if part == 'detector' and args.rt_detr:
            calls.update(rt_detr_calls(batch['inputs'], autocast, bool(args.accelerate)))
        first = next(iter(calls))
        measured = measure_calls(calls, args.repeat, args.device)
        # None if the memory does not suffice for the first config.
        baseline = next((row['median_s'] for row in measured if row['config'] == first), None)
        rows += [dict(row, part=part, speedup=baseline and baseline / row['median_s']) for row in measured]
    if 'detector' in args.parts and not args.only_accelerated:
        errors = measure_errors(models, batch)
        for row in rows:
            if row['part'] == 'detector' and row['config'] in errors:
                row['error'] = errors[row['config']]
    write_results(args.out, make_record(args, rows))


if __name__ == '__main__':
    main()
