#!/usr/bin/env python
"""Peak memory of a step of training against batch size, image size and the settings that save memory.

    python benchmarks/training_memory.py --out benchmarks/results/cpu_training_memory

The peak is what torch allocates at once during loss, backward and AdamW, beyond weights and optimizer state, which are
given apart. Tensors are the same on a GPU, where the allocator's reserve comes on top. Weights and images are random.
"""

import argparse
import gc
import sys
from functools import partial
from typing import List, NamedTuple

import torch

import lite_detr_mmdet  # noqa: F401  before mmdet
from lite_detr_mmdet.analysis.environment import describe_environment

# isort: split
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.logging import MMLogger

from lite_detr_mmdet.analysis.calls import CALLS, make_batch
from lite_detr_mmdet.analysis.records import Record
from lite_detr_mmdet.output_files import output_pair
from lite_detr_mmdet.timing import measure_peak_bytes
from lite_detr_mmdet.zoo import get_config

LITE = 'lite-dino-4scale_h3l1-2p1x3_r50_8xb2-12e_coco'
DINO = 'dino-4scale_r50_8xb2-12e_coco'


class Case(NamedTuple):
    """A step to measure; the fields are the columns of the table."""

    config: str
    batch_size: int
    height: int
    width: int
    num_cp: int = -1
    with_cp: bool = False
    dtype: str = 'float32'


CASES = (
    Case(LITE, 1, 480, 640),
    Case(LITE, 2, 480, 640),
    Case(LITE, 4, 480, 640),
    Case(LITE, 1, 640, 960),
    Case(LITE, 1, 800, 1333),
    Case(LITE, 1, 800, 1333, num_cp=3),
    Case(LITE, 1, 800, 1333, num_cp=6),
    Case(LITE, 1, 800, 1333, num_cp=6, with_cp=True),
    Case(LITE, 1, 800, 1333, dtype='bfloat16'),
    Case(LITE, 1, 800, 1333, num_cp=6, with_cp=True, dtype='bfloat16'),
    Case(LITE, 2, 800, 1333),
    Case(LITE, 2, 800, 1333, num_cp=6),
    Case(DINO, 1, 800, 1333),
)


def measure(case: Case, device: str) -> dict:
    """Bytes of a step, of the weights and of the optimizer's state."""
    cfg = get_config(case.config)
    cfg.model.backbone.init_cfg = None
    cfg.model.backbone.with_cp = case.with_cp
    if case.num_cp > 0:
        cfg.model.encoder.num_cp = case.num_cp
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).to(device)
    model.init_weights()
    dtype = getattr(torch, case.dtype)
    autocast = partial(torch.autocast, device.partition(':')[0], dtype, enabled=dtype != torch.float32)
    step = CALLS['training'](model, make_batch(case.batch_size, [case.height, case.width], device), autocast)
    step()  # allocates the state of the optimizer
    peak = measure_peak_bytes(step, device)
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    return dict(**case._asdict(), peak_bytes=peak, weights_bytes=weights, optimizer_bytes=2 * trained)


def table(rows: List[dict]) -> str:
    """The results in Markdown."""
    lines = [
        '| config | batch | image | num_cp | with_cp | dtype | peak of a step (GB) |',
        '|---|---|---|---|---|---|---|',
    ]
    for row in rows:
        image = f'{row["height"]}x{row["width"]}'
        cells = [row['config'], row['batch_size'], image, max(row['num_cp'], 0), row['with_cp'], row['dtype']]
        lines.append(f'| {" | ".join(map(str, cells))} | {row["peak_bytes"] / 1e9:.2f} |')
    state = (rows[0]['weights_bytes'] + rows[0]['optimizer_bytes']) / 1e9
    return '\n'.join([*lines, '', f'Weights and optimizer state take another {state:.2f} GB.'])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cpu', help='device (default: %(default)s)')
    parser.add_argument('--cases', type=int, nargs='+', help='numbers of the cases to measure (default: all)')
    parser.add_argument(
        '--out',
        type=output_pair,
        default='work_dirs/training_memory',
        help='write OUT.json and OUT.md (default: %(default)s)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    register_all_modules()
    MMLogger.get_instance('mmengine').setLevel('ERROR')
    rows = []
    for case in CASES if args.cases is None else [CASES[number] for number in args.cases]:
        rows.append(measure(case, args.device))
        print(rows[-1], file=sys.stderr, flush=True)
        gc.collect()
    record = Record('training_memory', describe_environment(args.device), rows)
    record.write_pair(args.out, '\n'.join(['# Memory of a training step', '', *record.lines(), '', table(rows)]))
    print(table(rows))


if __name__ == '__main__':
    main()
