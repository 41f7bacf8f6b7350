"""Make a file for others of a training checkpoint: weights, config, classes, license and how it was trained."""

import json
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Union

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from ..utils import file_sha256, load_checkpoint_file, save_checkpoint_file
from .model_card import make_model_card

PACKAGES = ('lite-detr-mmdet', 'torch', 'mmengine', 'mmcv', 'mmdet')


class PublishedModel(NamedTuple):
    """What :func:`publish_model` wrote.

    Attributes:
        path (Path): The checkpoint, its name ends with the first eight digits of its SHA-256.
        card (Path): The model card beside it.
        sha256 (str): SHA-256 of the checkpoint.
    """

    path: Path
    card: Path
    sha256: str


def publish_model(
    source: Union[str, Path],
    out_dir: Union[str, Path],
    name: Optional[str] = None,
    log: Union[str, Path, None] = None,
    fp16: bool = False,
    license_name: str = 'Apache-2.0',
) -> PublishedModel:
    """Publish a checkpoint of a training run or of the converter.

    Optimizer, schedules and message hub are left out, and so are the run's folders. The file loads with
    ``torch.load(path, weights_only=True)``, without this package.

    Args:
        source (str | Path): Checkpoint that holds its config.
        out_dir (str | Path): Folder to write to; it is made if it does not exist.
        name (str, optional): Name of the model, lower-case letters, digits and ``._-``. Defaults to None: the name of
            its config.
        log (str | Path, optional): ``scalars.json`` of the run. Defaults to None: the newest one beside the source.
        fp16 (bool): Whether to keep weights in half precision. Defaults to False.
        license_name (str): License of the weights. Defaults to 'Apache-2.0'.

    Raises:
        FileNotFoundError: If the source or the log does not exist.
        ValueError: If the source holds no config or no weights, a weight is not finite or does not fit half precision,
            or the name is not one.
    """
    checkpoint = load_checkpoint_file(source)
    meta = checkpoint.get('meta', {})
    if 'cfg' not in meta or 'state_dict' not in checkpoint:
        raise ValueError(f'{source} must hold weights and their config, as training runs and the converter save them')
    if name is None:
        name = Path(str(meta.get('experiment_name', Path(source).stem))).name
        name = re.sub(r'_\d{8}_\d{6}$', '', name).lower()  # mmengine adds the time to the name of the config
    if not re.fullmatch(r'[a-z0-9][a-z0-9._-]*', name):
        raise ValueError(f'name must be lower-case letters, digits and ._-, got {name!r}')
    log = find_log(source) if log is None else Path(log)
    published_meta = dict(
        name=name,
        cfg=clean_config(meta['cfg']),
        dataset_meta={key.lower(): value for key, value in meta.get('dataset_meta', {}).items()},
        license=license_name,
        dtype='float16' if fp16 else 'float32',
        training=None if log is None else digest_log(log),
        versions=package_versions(),
        **{key: meta[key] for key in ('epoch', 'iter', 'seed', 'converted_from') if key in meta},
    )
    state_dict = {key: prepare_weight(key, value, fp16) for key, value in checkpoint['state_dict'].items()}
    return _write(dict(meta=plain(published_meta), state_dict=state_dict), Path(out_dir), name)


def _write(checkpoint: dict, out_dir: Path, name: str) -> PublishedModel:
    out_dir.mkdir(parents=True, exist_ok=True)
    unnamed = out_dir / f'{name}.partial'
    save_checkpoint_file(checkpoint, unnamed)
    sha256 = file_sha256(unnamed)
    path = unnamed.replace(out_dir / f'{name}-{sha256[:8]}.pth')
    card = path.with_suffix('.md')
    card.write_text(make_model_card(path.name, sha256, path.stat().st_size, checkpoint))
    return PublishedModel(path, card, sha256)


def plain(value: Any) -> Any:
    """A value made of Python's own kinds, so that the restricted unpickler knows all of it."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else tuple(map(plain, value))
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist())
    if value is None or type(value) in (bool, int, float):
        return value
    return str(value)  # of a subclass such as the version of torch, too


def prepare_weight(name: str, value: Tensor, fp16: bool) -> Tensor:
    """A weight as it is published, on the CPU and without what shares its memory.

    Raises:
        ValueError: If it is not finite, or not in half precision.
    """
    value = value.detach().cpu().clone()
    if not value.is_floating_point():
        return value
    if not value.isfinite().all():
        raise ValueError(f'{name} must be finite')
    half = value.half()
    if fp16 and not half.isfinite().all():
        raise ValueError(f'{name} must fit half precision, got values up to {value.abs().max():.3g}')
    return half if fp16 else value


def clean_config(text: str) -> str:
    """A config without the folders of the run it comes from."""
    cfg = Config.fromstring(text, file_format='.py')
    cfg.work_dir = cfg.load_from = None
    cfg.resume = False
    text = cfg.pretty_text
    data_root = cfg.get('data_root')
    if isinstance(data_root, str) and Path(data_root).is_absolute():
        text = text.replace(data_root, f'data/{Path(data_root).name}/')
    return text


def find_log(source: Union[str, Path]) -> Optional[Path]:
    """The newest log of scalars beside a checkpoint, None if there is none."""
    logs = sorted(Path(source).parent.glob('*/vis_data/scalars.json'))
    return logs[-1] if logs else None


def digest_log(path: Path) -> Dict[str, Union[int, float, str, dict]]:
    """What a run's log says in the end: length, last loss and metrics, seconds for an iteration, memory.

    Args:
        path (Path): ``scalars.json``, a JSON object in each line.
    """
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    training = [line for line in lines if 'loss' in line]
    digest = dict(log_sha256=file_sha256(path))
    if training:
        times = sorted(line['time'] for line in training if 'time' in line)
        digest.update(epochs=training[-1].get('epoch'), iterations=training[-1].get('step', training[-1].get('iter')))
        digest.update(last_loss=training[-1]['loss'], first_loss=training[0]['loss'])
        if times:
            digest['seconds_per_iteration'] = times[len(times) // 2]
        if any('memory' in line for line in training):
            digest['memory_mb'] = max(line.get('memory', 0) for line in training)
    metrics = [line for line in lines if any('/' in key for key in line)]
    if metrics:
        digest['metrics'] = {key: value for key, value in metrics[-1].items() if '/' in key}
    return digest


def package_versions() -> Dict[str, str]:
    """Versions of Python and of the packages that publish."""
    versions = dict(python=platform.python_version(), torch=torch.__version__)
    for package in PACKAGES:
        try:
            versions.setdefault(package, metadata.version(package))
        except metadata.PackageNotFoundError:
            continue
    return versions
