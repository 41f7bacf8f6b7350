"""Publish a training checkpoint: weights, config, classes, license and how it was trained."""

import json
import platform
import re
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Union

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import (
    check_weights,
    config_to_json,
    file_sha256,
    load_checkpoint_file,
    save_checkpoint_file,
)
from ..output_files import write_text
from .embedded_config import read_embedded_config, without_folders
from .model_card import make_model_card

PACKAGES = ('lite-detr-mmdet', 'torch', 'mmengine', 'mmcv', 'mmdet')


class PublishedModel(NamedTuple):
    """What :func:`publish_model` wrote.

    Attributes:
        path (Path): The checkpoint; its name ends with the first eight digits of its SHA-256.
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
    overwrite: bool = False,
) -> PublishedModel:
    """Publish a training checkpoint, or one written by the converter.

    Optimizer, schedules and message hub are left out, and so are the run's folders. The file loads with
    ``torch.load(path, weights_only=True)``, without this package.

    Args:
        source (str | Path): Checkpoint that holds its config.
        out_dir (str | Path): Folder to write to; it is created if it does not exist.
        name (str, optional): Name of the model, lower-case letters, digits and ``._-``. Defaults to None: the name of
            its config.
        log (str | Path, optional): ``scalars.json`` of the run. Defaults to None: the newest one beside the source.
        fp16 (bool): Whether to keep weights in half precision. Defaults to False.
        license_name (str): License of the weights. Defaults to 'Apache-2.0'.
        overwrite (bool): Whether to replace files that already exist. Defaults to False.

    Raises:
        FileExistsError: If a file already exists, or a link in its place.
        CheckpointError: If the source is damaged, or holds more than weights and a config of plain data.
        FileNotFoundError: If the source or the log does not exist.
        ValueError: If the source holds no config or no weights, a weight is not finite or does not fit half precision,
            or the name is not valid.
    """
    checkpoint = load_checkpoint_file(source)
    meta = checkpoint.get('meta', {})
    if not {'cfg', 'cfg_json'} & meta.keys() or 'state_dict' not in checkpoint:
        raise ValueError(f'{source} must hold weights and their config, as training runs and the converter save them')
    if name is None:
        name = Path(str(meta.get('experiment_name', Path(source).stem))).name
        name = re.sub(r'_\d{8}_\d{6}$', '', name).lower()  # mmengine adds the time to the name of the config
    if not re.fullmatch(r'[a-z0-9][a-z0-9._-]*', name):
        raise ValueError(f'name must be lower-case letters, digits and ._-, got {name!r}')
    check_weights(source, checkpoint['state_dict'], 'state_dict', finite=True)
    cfg = without_folders(read_embedded_config(source, meta))
    log = find_log(source) if log is None else Path(log)
    published_meta = dict(
        name=name,
        cfg=cfg.pretty_text,  # for people, and for programs that execute it
        cfg_json=config_to_json(cfg.to_dict()),
        dataset_meta={key.lower(): value for key, value in (meta.get('dataset_meta') or {}).items()},
        license=license_name,
        dtype='float16' if fp16 else 'float32',
        training=None if log is None else digest_log(log),
        versions=package_versions(),
        **{key: meta[key] for key in ('epoch', 'iter', 'seed', 'converted_from') if key in meta},
    )
    state_dict = {key: prepare_weight(key, value, fp16) for key, value in checkpoint['state_dict'].items()}
    return _write(dict(meta=plain(published_meta), state_dict=state_dict), Path(out_dir), name, overwrite)


def _write(checkpoint: dict, out_dir: Path, name: str, overwrite: bool) -> PublishedModel:
    """Write the checkpoint and its card next to it, atomically, never over another file or through a link."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{name}.', dir=out_dir) as folder:
        unnamed = Path(folder) / 'checkpoint.pth'
        save_checkpoint_file(checkpoint, unnamed)
        sha256 = file_sha256(unnamed)
        path = out_dir / f'{name}-{sha256[:8]}.pth'
        card = path.with_suffix('.md')
        for target in (path, card):
            if target.is_symlink() or (target.exists() and not overwrite):
                raise FileExistsError(f'{target} already exists: publish to another folder, or allow to overwrite it')
        text = make_model_card(path.name, sha256, unnamed.stat().st_size, checkpoint)
        unnamed.replace(path)
    write_text(text, card)
    return PublishedModel(path, card, sha256)


def plain(value: Any) -> Any:
    """A value made of Python's built-in types, so that the restricted unpickler accepts all of it."""
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
    """A weight as it is published: on the CPU, in memory of its own.

    Raises:
        ValueError: If it is not finite, or overflows half precision.
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


def find_log(source: Union[str, Path]) -> Optional[Path]:
    """The newest log of scalars beside a checkpoint, None if there is none."""
    logs = sorted(Path(source).parent.glob('*/vis_data/scalars.json'))
    return logs[-1] if logs else None


def digest_log(path: Path) -> Dict[str, Union[int, float, str, dict]]:
    """Summary of a training log: length, losses, last metrics, seconds per iteration, memory.

    Args:
        path (Path): ``scalars.json``, a JSON object in each line.

    Raises:
        ValueError: If it is anything else.
    """
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        return _digest(lines, path)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f'log must be the scalars.json of a training run, got {str(path)!r}: {error}') from error


def _digest(lines: List[Dict[str, Any]], path: Path) -> Dict[str, Any]:
    training = [line for line in lines if 'loss' in line]
    digest: Dict[str, Any] = dict(log_sha256=file_sha256(path))
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
    """Versions of Python and of the packages used for publishing."""
    versions = dict(python=platform.python_version(), torch=torch.__version__)
    for package in PACKAGES:
        try:
            versions.setdefault(package, metadata.version(package))
        except metadata.PackageNotFoundError:
            continue
    return versions
