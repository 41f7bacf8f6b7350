"""Command-line settings that override those of a config; misspelt ones are refused, and one is enough for each."""

from difflib import get_close_matches
from typing import Any, Dict

from mmengine.config import Config

from ..datasets.inspection import iter_datasets

# Top-level settings of mmengine's Runner and of the tools that a config may leave out.
KNOWN_ROOTS = (
    'auto_scale_lr',
    'backend_args',
    'cfg',
    'custom_hooks',
    'custom_imports',
    'data_preprocessor',
    'data_root',
    'default_hooks',
    'default_scope',
    'env_cfg',
    'experiment_name',
    'find_unused_parameters',
    'launcher',
    'load_from',
    'log_level',
    'log_processor',
    'max_epochs',
    'model',
    'model_wrapper_cfg',
    'optim_wrapper',
    'param_scheduler',
    'randomness',
    'resume',
    'runner_type',
    'sync_bn',
    'test_cfg',
    'test_dataloader',
    'test_evaluator',
    'train_cfg',
    'train_dataloader',
    'tta_model',
    'tta_pipeline',
    'val_cfg',
    'val_dataloader',
    'val_evaluator',
    'vis_backends',
    'visualizer',
    'work_dir',
)
EPOCH_KEYS = ('end', 'T_max', 'milestones')


def apply_overrides(cfg: Config, options: Dict[str, Any]) -> None:
    """Apply settings such as ``{'model.num_queries': 300}`` to a config.

    ``data_root`` changes the folder of every data set and evaluator in the config, and ``max_epochs`` the end of
    training together with the learning-rate schedule: when the config is read, these values are already filled in.

    Raises:
        ValueError: If a setting leads through a part that the config does not have; the message suggests the closest
            name.
    """
    for name in options:
        check_name(cfg, name)
    special = {name: options[name] for name in ('data_root', 'max_epochs') if name in options}
    cfg.merge_from_dict(options)
    if 'data_root' in special:
        move_data(cfg, str(special['data_root']))
    if 'max_epochs' in special:
        set_max_epochs(cfg, special['max_epochs'])


def check_name(cfg: Config, name: str) -> None:
    """Refuse a name that leads through a part that is not there; the last part may be new.

    Raises:
        ValueError: With the closest name.
    """
    parts = name.split('.')
    known = sorted({*cfg.keys(), *KNOWN_ROOTS})
    if parts[0] not in known:
        raise ValueError(f'there is no setting {name!r}{_nearest(parts[0], known)}')
    value: Any = cfg
    for depth, part in enumerate(parts[:-1]):
        if isinstance(value, (list, tuple)):
            if not part.isdigit() or int(part) >= len(value):
                raise ValueError(
                    f'there is no setting {name!r}: {".".join(parts[:depth])} is a list of {len(value)}, got {part!r}'
                )
            value = value[int(part)]
        elif isinstance(value, (dict, Config)):
            if part not in value:
                if depth == 0:  # a root that the config leaves to its default
                    return
                where = '.'.join(parts[:depth])
                raise ValueError(
                    f'there is no setting {name!r}: {where} has no {part!r}{_nearest(part, value.keys())}'
                )
            value = value[part]
        else:
            return  # None or a number, to be replaced by a dict


def _nearest(name: str, known: Any) -> str:
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f'; did you mean {near[0]!r}?' if near else ''


def move_data(cfg: Config, data_root: str) -> None:
    """Move every data set, and the annotation file of every evaluator, to another folder."""
    root = data_root.rstrip('/') + '/'
    for split in ('train', 'val', 'test'):
        old = ''
        for dataset in iter_datasets((cfg.get(f'{split}_dataloader') or {}).get('dataset')):
            old = str(dataset.get('data_root') or '')
            dataset['data_root'] = root
        evaluators = cfg.get(f'{split}_evaluator') or []
        for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            path = evaluator.get('ann_file')
            if isinstance(path, str) and old and path.startswith(old):
                evaluator['ann_file'] = root + path[len(old) :].lstrip('/')


def set_max_epochs(cfg: Config, max_epochs: int) -> None:
    """Train for another number of epochs; the milestones and the end of the schedule are scaled with it.

    Raises:
        ValueError: If it is not a number above 0, or the config does not train by epochs.
    """
    if not isinstance(max_epochs, int) or max_epochs < 1:
        raise ValueError(f'max_epochs must be a whole number above 0, got {max_epochs!r}')
    old = (cfg.get('train_cfg') or {}).get('max_epochs')
    if old is None:
        raise ValueError('max_epochs cannot be set: train_cfg has no max_epochs, so training is not by epochs')
    cfg.train_cfg['max_epochs'] = max_epochs
    if cfg.train_cfg.get('val_interval', 1) > max_epochs:
        cfg.train_cfg['val_interval'] = max_epochs
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]:
        if not scheduler.get('by_epoch', True):
            continue
        for key in EPOCH_KEYS:
            value = scheduler.get(key)
            if isinstance(value, (list, tuple)):
                scheduler[key] = [max(1, round(entry * max_epochs / old)) for entry in value]
            elif isinstance(value, int):
                scheduler[key] = max(1, round(value * max_epochs / old))
