"""What ``tools/train.py`` and ``tools/test.py`` share: arguments, reading the config, building the runner."""

import argparse
import os
from pathlib import Path

from mmdet.registry import RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from ..compat import cpu_model_wrapper_cfg
from ..zoo import ConfigNotFoundError, find_config


def existing_config(name: str) -> str:
    """Type of a command-line argument: any name of a config that :func:`lite_detr_mmdet.get_config` takes.

    Raises:
        argparse.ArgumentTypeError: If there is no such config.
    """
    try:
        return str(find_config(name))
    except ConfigNotFoundError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def existing_checkpoint(name: str) -> str:
    """Type of a command-line argument: a checkpoint file or an address.

    Raises:
        argparse.ArgumentTypeError: If it is neither.
    """
    if '://' not in name and not os.path.isfile(name):
        raise argparse.ArgumentTypeError(f'must be a checkpoint file that exists or an address, got {name!r}')
    return name


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of MMDetection's launchers that training and testing have in common."""
    parser.add_argument('--work-dir', help='folder of logs and checkpoints (default: work_dirs/CONFIG)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings that override those of the config, as key=value; lists as key="[a,b]"',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # Launchers of torch pass one spelling or the other, depending on their version.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def load_config(args: argparse.Namespace) -> Config:
    """Read ``args.config`` and apply the arguments of :func:`add_launch_arguments` to it."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    if args.launcher != 'none' and cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = cpu_model_wrapper_cfg(cfg.get('find_unused_parameters', False))
    return cfg


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config asks for."""
    setup_cache_size_limit_of_dynamo()
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
