"""What ``tools/train.py`` and ``tools/test.py`` share: arguments, reading the config, building the runner."""

import argparse
import functools
import importlib.util
import os
from pathlib import Path
from typing import Callable, Union

from mmdet.registry import RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..compat import cpu_model_wrapper_cfg
from ..datasets.checks import CheckedSamples, check_class_names, explain_failed_build, leaf_datasets
from ..engine import ShortRunner, without_prints
from ..zoo import ConfigNotFoundError, find_config
from .overrides import apply_overrides
from .warnings_filter import silence_upstream_warnings


def existing_config(name: str) -> str:
    """Type of a command-line argument: any name of a config that :func:`lite_detr_mmdet.get_config` accepts.

    Raises:
        argparse.ArgumentTypeError: If there is no such config.
    """
    try:
        return str(find_config(name))
    except ConfigNotFoundError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def existing_checkpoint(name: str) -> str:
    """Type of a command-line argument: a checkpoint file or a URL.

    Raises:
        argparse.ArgumentTypeError: If it is neither.
    """
    if '://' not in name and not os.path.isfile(name):
        raise argparse.ArgumentTypeError(f'must be a checkpoint file that exists or a URL, got {name!r}')
    return name


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of MMDetection's launchers that training and testing share."""
    parser.add_argument('--work-dir', help='folder of logs and checkpoints (default: work_dirs/CONFIG)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings that override those of the config, as key=value; lists as key="[a,b]"',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--verbose', action='store_true', help='print all that the log file gets')
    # Launchers of torch pass one spelling or the other, depending on their version.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def load_config(args: argparse.Namespace) -> Config:
    """Read ``args.config`` and apply the arguments of :func:`add_launch_arguments` to it."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if not args.verbose:
        silence_upstream_warnings()
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        try:
            apply_overrides(cfg, args.cfg_options)
        except ValueError as error:
            raise SystemExit(f'--cfg-options: {error}') from error
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    if args.launcher != 'none' and cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = cpu_model_wrapper_cfg(cfg.get('find_unused_parameters', False))
    return cfg


def build_runner(cfg: Config, skip_broken: bool = False, verbose: bool = False) -> Runner:
    """Build the runner that the config asks for; its data sets are checked as they are built.

    Args:
        cfg (Config): The config.
        skip_broken (bool): Whether to skip and count training images that cannot be used. Defaults to False.
        verbose (bool): Whether the console shows all that the log file gets. Defaults to False.
    """
    setup_cache_size_limit_of_dynamo()
    if not verbose and cfg.get('log_processor', {}).get('type', 'LogProcessor') == 'LogProcessor':
        cfg.log_processor = dict(cfg.get('log_processor', {}), type='ShortLogProcessor')
    runner_type = Runner if verbose else ShortRunner
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else runner_type.from_cfg(cfg)
    runner.build_dataloader = _checked(runner.build_dataloader, skip_broken)
    return runner


def add_tensorboard(cfg: Config) -> None:
    """Write curves for TensorBoard, too, where it is installed and the config names no such writer."""
    if importlib.util.find_spec('tensorboard') is None or not cfg.get('visualizer'):
        return
    backends = list(cfg.visualizer.get('vis_backends') or [])
    if not any(str(backend.get('type')).endswith('TensorboardVisBackend') for backend in backends):
        cfg.visualizer.vis_backends = [*backends, dict(type='TensorboardVisBackend')]


def _checked(build: Callable, skip_broken: bool) -> Callable:
    """Wrap ``build_dataloader``: the data set is checked, and errors name the file of a sample that fails."""

    @functools.wraps(build)
    def build_dataloader(dataloader: Union[DataLoader, dict], *args, **kwargs) -> DataLoader:
        try:
            built = without_prints(build)(dataloader, *args, **kwargs)  # pycocotools says that it reads a file
        except Exception as error:  # caused by the files, which the error does not name
            if isinstance(dataloader, dict) and isinstance(dataloader.get('dataset'), dict):
                raise explain_failed_build(dataloader['dataset'], error) from error
            raise
        check_class_names(built.dataset)
        for leaf in leaf_datasets(built.dataset):
            if hasattr(leaf, 'prepare_data') and hasattr(leaf, 'get_data_info'):
                leaf.prepare_data = CheckedSamples(leaf, skip_broken)
        return built

    return build_dataloader
