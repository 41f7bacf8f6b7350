#!/usr/bin/env python
"""Evaluate a checkpoint; arguments are those of MMDetection's ``tools/test.py``."""

import argparse

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults

from lite_detr_mmdet.checkpoint import CheckpointError, DownloadError
from lite_detr_mmdet.datasets.checks import DatasetError
from lite_detr_mmdet.utils import add_launch_arguments, build_runner, existing_checkpoint, existing_config, load_config
from lite_detr_mmdet.utils.tta import use_tta


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint')
    parser.add_argument('config', type=existing_config, help='config file or name of a model')
    parser.add_argument('checkpoint', type=existing_checkpoint, help='checkpoint file or URL')
    parser.add_argument('--out', help='pickle file to write the predictions to')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='folder below the work dir to write pictures of the predictions to')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds between pictures (default: %(default)s)')
    parser.add_argument('--tta', action='store_true', help='detect in every image and its mirror image, and merge')
    add_launch_arguments(parser)
    args = parser.parse_args()
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out must end in .pkl or .pickle, got {args.out!r}')
    return args


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
    if args.tta:
        try:
            use_tta(cfg)
        except ValueError as error:
            raise SystemExit(f'error: {error}') from error
    runner = build_runner(cfg, verbose=args.verbose)
    if args.out is not None:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    try:
        runner.test()
    except (CheckpointError, DatasetError, DownloadError) as error:
        raise SystemExit(f'error: {error}') from error


if __name__ == '__main__':
    main()
