#!/usr/bin/env python
"""Time detectors: latency, images per second, memory, and where the time goes.

    python tools/analysis_tools/benchmark.py CONFIG [CONFIG ...] --shape 800 1333 --json latency.json
    python tools/analysis_tools/benchmark.py CONFIG --device cuda --precision bfloat16 --batch 16 --compile
    python tools/analysis_tools/benchmark.py CONFIG --accelerate         as it is, and by lite_detr_mmdet.accelerate

Weights are random: time does not depend on them. All detectors run in one process, one call after the other in every
round, from a normalised image in memory to boxes. The first is the baseline of the ratios. The peak memory is what
torch allocates at once, beyond weights and optimizer state. The parts are timed in rounds of their own.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Dict, List

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
import torch
from mmdet.utils import register_all_modules
from mmengine.logging import MMLogger
from terminaltables import AsciiTable
from torch import nn

from lite_detr_mmdet.acceleration import accelerate
from lite_detr_mmdet.analysis.calls import build_model, detector_call, make_batch, training_call
from lite_detr_mmdet.analysis.compute import PARTS, check_parts, missing_parts
from lite_detr_mmdet.analysis.detector_timing import measure_calls, measure_peaks, time_parts
from lite_detr_mmdet.analysis.environment import describe_environment
from lite_detr_mmdet.analysis.records import Record
from lite_detr_mmdet.compat import check_device
from lite_detr_mmdet.output_files import output_file
from lite_detr_mmdet.utils import existing_config, silence_upstream_warnings


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', type=existing_config, help='config or name of a model')
    parser.add_argument(
        '--shape', nargs=2, type=int, default=[800, 1333], metavar=('H', 'W'), help='size of the image'
    )
    parser.add_argument('--batch', type=int, default=1, help='images at a time (default: %(default)s)')
    parser.add_argument('--device', default='cpu', help='default: %(default)s')
    parser.add_argument(
        '--precision', choices=['float32', 'float16', 'bfloat16'], default='float32', help='of autocast'
    )
    parser.add_argument('--repeat', type=int, default=5, help='timed rounds (default: %(default)s)')
    parser.add_argument('--compile', action='store_true', help='compile the encoders by torch.compile')
    parser.add_argument('--accelerate', action='store_true', help='time accelerated forms as well (CPU)')
    parser.add_argument('--no-training', action='store_true', help='leave out the memory of a training step')
    parser.add_argument('--json', metavar='OUT', type=output_file, help='write the record to this file')
    args = parser.parse_args()
    if min(args.shape) < 1 or args.batch < 1 or args.repeat < 1:
        parser.error('--shape, --batch and --repeat must be positive')
    names = [Path(config).stem for config in args.configs]
    if len(set(names)) < len(names):
        parser.error(f'every CONFIG must have another name, got {" ".join(names)}')
    try:
        check_device(args.device)
    except ValueError as error:
        parser.error(f'--device: {error}')
    if args.accelerate and args.device != 'cpu':
        parser.error(f'--accelerate is for the CPU, got --device {args.device}')
    return args


def build_models(args: argparse.Namespace) -> Dict[str, nn.Module]:
    """The detectors, by name."""
    models = {}
    for config in args.configs:
        name = Path(config).stem
        models[name] = build_model(config, args.device)
        if args.accelerate:
            models[f'{name}, accelerated'] = accelerate(build_model(config, args.device), verbose=False)
    if args.compile:
        for model in models.values():
            check_parts(model)
            model.encoder.compile()
    return models


def measure(args: argparse.Namespace) -> List[dict]:
    """A row for each detector."""
    device_type = args.device.partition(':')[0]
    dtype = getattr(torch, args.precision)
    autocast = partial(torch.autocast, device_type, dtype, enabled=args.precision != 'float32')
    batch = make_batch(args.batch, args.shape, args.device)
    models = build_models(args)
    calls = {name: detector_call(model, batch, autocast) for name, model in models.items()}
    rows = measure_calls(calls, args.repeat, args.device)
    measured = {row['config']: models[row['config']] for row in rows}
    detectors = {name: model for name, model in measured.items() if not missing_parts(model)}
    parts = time_parts(detectors, batch, args.repeat, args.device, autocast)
    for row in rows:
        row.update(part='detector', speedup=rows[0]['median_s'] / row['median_s'])
        row.update(images_per_s=args.batch / row['median_s'], parts_s=parts.get(row['config']))
    if not args.no_training:  # last: it needs the models in another mode
        for row in rows:
            name = row['config']
            trained = name in detectors and ', accelerated' not in name
            step = {name: training_call(measured[name], batch, autocast)} if trained else {}
            row['training_peak_bytes'] = measure_peaks(step, args.device).get(name)
    return rows


def table(rows: List[dict]) -> str:
    """What was measured, as a table."""
    cells = [['config', 'p50 ms', 'p95 ms', 'images/s', 'ratio', 'peak MB', 'training', *PARTS, 'other']]
    for row in rows:
        peaks = [row['peak_bytes'], row.get('training_peak_bytes')]
        parts = row['parts_s'] or dict.fromkeys((*PARTS, 'other'))
        cells.append(
            [
                row['config'],
                f'{1000 * row["median_s"]:.1f}',
                f'{1000 * row["p95_s"]:.1f}',
                f'{row["images_per_s"]:.2f}',
                f'{row["speedup"]:.2f}x',
                *('-' if peak is None else f'{peak / 1e6:.0f}' for peak in peaks),
                *('-' if seconds is None else f'{seconds / sum(parts.values()):.0%}' for seconds in parts.values()),
            ]
        )
    return AsciiTable(cells).table


def main() -> None:
    args = parse_args()
    silence_upstream_warnings()
    register_all_modules()
    MMLogger.get_instance('mmengine').setLevel('ERROR')  # not a line for each weight that is initialised
    try:
        rows = measure(args)
    except (KeyError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    settings = {name: True for name in ('accelerate', 'compile') if getattr(args, name)}
    record = Record(
        benchmark='detectors',
        environment=describe_environment(args.device),
        results=rows,
        shape=tuple(args.shape),
        batch_size=args.batch,
        dtype=args.precision,
        repeat=args.repeat,
        settings=settings,
    )
    print(table(rows))
    print('\n'.join(record.lines()))
    if args.json:
        record.write(args.json)
        print(f'wrote {args.json}')


if __name__ == '__main__':
    main()
