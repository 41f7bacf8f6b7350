#!/usr/bin/env python
"""Evaluate a checkpoint; arguments are those of MMDetection's ``tools/test.py`` without test-time augmentation."""

import argparse
import os
from pathlib import Path

import lite_detr_mmdet  # noqa: F401  registers the models and fixes what mmengine needs on today's torch
from lite_detr_mmdet.compat import cpu_model_wrapper_cfg
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.registry import RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config, DictAction
from mmengine.runner import Runner


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder of logs and metrics (default: work_dirs/CONFIG)')
    parser.add_argument('--out', help='pickle file to write the predictions to')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='folder below the work dir to write pictures of the predictions to')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds between two pictures')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings that override those of the config, as key=value; lists as key="[a,b]"',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes one spelling or the other, depending on the version of torch.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    for name in ('config', 'checkpoint'):
        value = getattr(args, name)
        if not os.path.isfile(value) and '://' not in value:
            parser.error(f'{name} must be a file, got {value!r}')
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out must end in .pkl or .pickle, got {args.out!r}')
    return args


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and apply the command line to it."""
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
    if args.launcher != 'none' and cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = cpu_model_wrapper_cfg()
    return cfg


def main() -> None:
    setup_cache_size_limit_of_dynamo()
    args = parse_args()
    cfg = load_config(args)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if args.out is not None:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    runner.test()


if __name__ == '__main__':
    main()
