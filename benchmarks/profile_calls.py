#!/usr/bin/env python
"""Who takes what in a call of a detector: torch's operators by their own time, on a CPU. Writes OUT.md.

    python benchmarks/profile_calls.py lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco --part encoder_training
    python benchmarks/profile_calls.py lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco --accelerate float32 --avx2

Weights are random. The call is profiled once, after one that warms up.
"""

import argparse
from pathlib import Path
from typing import List

from detectors import set_up
from torch.profiler import ProfilerActivity, profile

from lite_detr_mmdet.acceleration import accelerate
from lite_detr_mmdet.analysis.calls import CALLS, build_model, make_batch
from lite_detr_mmdet.analysis.environment import describe_environment
from lite_detr_mmdet.output_files import output_pair, prepare_output, write_text
from lite_detr_mmdet.timing import measure_seconds
from lite_detr_mmdet.utils import existing_config


def table(profiler: profile, rows: int) -> List[str]:
    """Lines of Markdown: the operators with the most time of their own."""
    events = sorted(profiler.key_averages(), key=lambda event: event.self_cpu_time_total, reverse=True)
    total = sum(event.self_cpu_time_total for event in events)
    lines = ['| operator | own ms | share | calls |', '| --- ' * 4 + '|']
    for event in events[:rows]:
        own = event.self_cpu_time_total
        lines.append(f'| {event.key} | {own / 1000:.0f} | {own / total:.1%} | {event.count} |')
    return [*lines, f'| all | {total / 1000:.0f} | | |']


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=existing_config, help='config file or name of a model')
    parser.add_argument('--part', choices=tuple(CALLS), default='detector')
    parser.add_argument('--shape', nargs=2, type=int, default=[800, 1333], metavar=('H', 'W'))
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--accelerate', choices=['float32', 'bfloat16'], help='profile the accelerated detector')
    parser.add_argument('--avx2', action='store_true', help='restart with all libraries limited to AVX2')
    parser.add_argument('--keep-pages', action='store_true', help='restart with a glibc that keeps the pages it frees')
    parser.add_argument('--rows', type=int, default=15, help='operators listed (default: %(default)s)')
    parser.add_argument(
        '--out', type=output_pair, default='work_dirs/profile', help='write OUT.md (default: %(default)s)'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    set_up(args)
    model = build_model(args.config, 'cpu')
    if args.accelerate:
        accelerate(model, args.accelerate, verbose=False)
    run = CALLS[args.part](model, make_batch(args.batch_size, args.shape, 'cpu'))
    run()
    seconds = measure_seconds(run, 'cpu')
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    height, width = args.shape
    lines = [
        f'# {Path(args.config).stem}, {args.part}{", accelerated" if args.accelerate else ""}',
        '',
        f'{args.batch_size} x 3 x {height} x {width}; {seconds:.3f} s without the profiler.',
        '',
        *table(profiler, args.rows),
        '',
        *describe_environment().lines(),
    ]
    page = '\n'.join(lines)
    write_text(page + '\n', prepare_output(f'{args.out}.md'))
    print(page)


if __name__ == '__main__':
    main()
