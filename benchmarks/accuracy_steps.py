#!/usr/bin/env python
"""Time training steps of the models of the accuracy study in turns, on its images and in its precision.

    python benchmarks/accuracy_steps.py hit_uav --data-root data/hit_uav --amp

CPU time of one thread, median: what a step costs, whatever else runs. Trainings ran beside other work, so
their own clocks mean nothing; docs/accuracy.md turns epochs into time with these.
"""

import argparse
import json
import statistics
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Callable, Optional

import part_sampler  # noqa: F401  registers the sampler
import torch
from accuracy_models import BASELINE, LITE, MODELS, RECIPES, ROOT_VARIABLES, make_config
from mmengine.runner import Runner

from lite_detr_mmdet.analysis.environment import describe_environment
from lite_detr_mmdet.analysis.records import Record
from lite_detr_mmdet.output_files import output_file

OUT = Path(__file__).resolve().parent / 'results'


def make_step(
    dataset: str, model: str, data_root: Optional[Path], recipe: dict, amp: bool, batches: int
) -> Callable[[], None]:
    """A training step of a model of the study on images of the set, a new batch each time, in rotation."""
    cfg = make_config(dataset, model, 0, data_root, recipe)
    cfg.work_dir, cfg.log_level = 'work_dirs/accuracy_steps', 'ERROR'
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    runner = Runner.from_cfg(cfg)
    loader = iter(runner.build_dataloader(cfg.train_dataloader, seed=0))
    data = [next(loader) for _ in range(batches)]
    runner.model.init_weights()
    runner.model.train()
    optimizer = runner.build_optim_wrapper(cfg.optim_wrapper)
    for group in optimizer.optimizer.param_groups:
        group['lr'] *= 0.05  # as in the warm-up
    context = partial(torch.autocast, 'cpu', dtype=torch.bfloat16) if amp else nullcontext

    def step() -> None:
        data.append(data.pop(0))
        batch = dict(inputs=list(data[0]['inputs']), data_samples=list(data[0]['data_samples']))
        with context():
            runner.model.train_step(batch, optimizer)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('dataset', choices=tuple(ROOT_VARIABLES))
    parser.add_argument('--data-root', type=Path, help='folder of the data (default: that of the config)')
    parser.add_argument('--models', nargs='+', choices=tuple(MODELS), default=[BASELINE, LITE], metavar='MODEL')
    parser.add_argument('--num-queries', type=int, help='override of the recipe')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    parser.add_argument('--repeat', type=int, default=15, help='timed rounds (default: %(default)s)')
    parser.add_argument(
        '--out',
        type=output_file,
        help='the .json file (default: results/accuracy_steps_DATASET.json, with --num-queries N ..._N_queries.json)',
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    environment = describe_environment('cpu')
    recipe = {} if args.num_queries is None else dict(num_queries=args.num_queries)
    root = args.data_root and args.data_root.resolve()
    steps = {model: make_step(args.dataset, model, root, recipe, args.amp, batches=4) for model in args.models}
    seconds = {model: [] for model in steps}
    for repeat in range(args.repeat + 2):
        for model, step in steps.items():
            begin = time.process_time()
            step()
            if repeat >= 2:
                seconds[model].append(time.process_time() - begin)
    results = {model: round(statistics.median(values), 4) for model, values in seconds.items()}
    record = Record(
        'accuracy_steps',
        environment,
        results,
        batch_size=RECIPES[args.dataset]['batch_size'],
        dtype='bfloat16' if args.amp else 'float32',
        repeat=args.repeat,
        settings=dict(dataset=args.dataset, **recipe),
    )
    study_round = '' if args.num_queries is None else f'_{args.num_queries}_queries'
    record.write(args.out or OUT / f'accuracy_steps_{args.dataset}{study_round}.json')
    print(json.dumps(results, indent=1))


if __name__ == '__main__':
    main()
