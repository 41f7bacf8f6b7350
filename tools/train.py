#!/usr/bin/env python
"""Train a detector; arguments are those of MMDetection's ``tools/train.py``.

The console shows one short line for each interval, and a progress bar in a terminal; the log file in the work dir has
all losses, the config and the environment. Curves are written for TensorBoard where it is installed.
"""

import argparse

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
from mmengine.config import Config

from lite_detr_mmdet.checkpoint import CheckpointError, DownloadError
from lite_detr_mmdet.compat import has_accelerator
from lite_detr_mmdet.datasets.checks import DatasetError
from lite_detr_mmdet.engine import DataSummaryHook, ProgressBarHook, cpu_has_bfloat16
from lite_detr_mmdet.utils import (
    add_launch_arguments,
    add_tensorboard,
    build_runner,
    existing_checkpoint,
    existing_config,
    load_config,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector')
    parser.add_argument('config', type=existing_config, help='config file or name of a model')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate to the batch size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        type=lambda name: name if name == 'auto' else existing_checkpoint(name),
        help='checkpoint to resume from; without a value, the latest one of the work dir',
    )
    parser.add_argument(
        '--skip-broken', action='store_true', help='skip and count training images that cannot be used'
    )
    add_launch_arguments(parser)
    args = parser.parse_args()
    if args.amp and not has_accelerator() and not cpu_has_bfloat16():
        parser.error('--amp needs a GPU, or a CPU that computes in bfloat16 (AVX-512 BF16 or AMX): there is neither')
    return args


def apply_training_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the arguments that only training has.

    Raises:
        SystemExit: If the learning rate is to be scaled and the config does not say to which batch size it belongs.
    """
    if args.amp and not has_accelerator():
        cfg.optim_wrapper.type = 'CPUAmpOptimWrapper'
    elif args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise SystemExit(f'--auto-scale-lr needs auto_scale_lr.base_batch_size, which {args.config} does not set')
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    apply_training_arguments(cfg, args)
    add_tensorboard(cfg)
    try:
        runner = build_runner(cfg, args.skip_broken, args.verbose)
        if not any(isinstance(hook, DataSummaryHook) for hook in runner.hooks):
            runner.register_hook(DataSummaryHook())
        runner.register_hook(ProgressBarHook())
        runner.train()
    except (CheckpointError, DatasetError, DownloadError) as error:
        raise SystemExit(f'error: {error}') from error


if __name__ == '__main__':
    main()
