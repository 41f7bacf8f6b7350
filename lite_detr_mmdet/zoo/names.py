"""From the name of a model to its config: one lookup for Python and for every command."""

import fnmatch
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Iterable, List, Optional, Union

from mmengine.config import Config

from .files import config_folder
from .metafiles import ShippedModel, shipped_models

SUFFIXES = ('.py', '.json', '.yaml', '.yml')  # of the config files that mmengine reads


class ConfigNotFoundError(FileNotFoundError, ValueError):
    """No config has the name that was asked for; the message holds the nearest names."""

    def __init__(self, name: str, reason: str, nearest: Iterable[str] = ()) -> None:
        near = ', '.join(nearest)
        super().__init__(
            f'{name!r} {reason}{f"; did you mean {near}?" if near else "."} A config is given as the name of a model '
            "(lite_detr_mmdet.list_models() gives all), as a file, or as a package's, e.g. "
            'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
        )


def list_models(pattern: str = '*', pretrained: bool = False) -> List[str]:
    """Names of the shipped models.

    Args:
        pattern (str): Shell pattern that the names must match, e.g. 'lite-dino*swin*'. Defaults to '*'.
        pretrained (bool): Whether to list only models with published weights. Defaults to False.
    """
    models = shipped_models().values()
    return [m.name for m in models if fnmatch.fnmatch(m.name, pattern) and (m.weights or not pretrained)]


def get_config(name: Union[str, Path]) -> Config:
    """Read a config.

    Args:
        name (str | Path): Name of a shipped model, with its recipe ('lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco',
            '.py' may follow) or without ('lite-dino-4scale_h3l1-2p1x3_r50'); a config file; or a config of an
            installed package ('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py').

    Raises:
        ConfigNotFoundError: If there is no such config.
    """
    return Config.fromfile(find_config(name))


def find_config(name: Union[str, Path]) -> Path:
    """File of the config that a name stands for; see :func:`get_config` for the forms of names.

    Raises:
        ConfigNotFoundError: If there is no such config; a FileNotFoundError and a ValueError.
    """
    text = str(name)
    if '::' in text:
        return find_package_config(text)
    path = Path(text)
    if path.suffix in SUFFIXES and path.is_file():
        return path
    model = _find_by_name(text)
    if model is None:
        reason = 'is not a config file that exists' if path.suffix in SUFFIXES else 'is not a model of lite_detr_mmdet'
        raise ConfigNotFoundError(text, reason, _nearest_models(text))
    return model.config


def find_model(name: Union[str, Path]) -> Optional[ShippedModel]:
    """The shipped model that a name stands for, None for a config that is not shipped here.

    Raises:
        ConfigNotFoundError: If there is no such config.
    """
    path = find_config(name).resolve()
    return next((model for model in shipped_models().values() if model.config.resolve() == path), None)


def find_package_config(name: str) -> Path:
    """File of a config that an installed package ships.

    Args:
        name (str): Name of the package, '::' and the path of the config below its ``configs``, as in
            'lite_detr_mmdet::lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py'.

    Raises:
        ConfigNotFoundError: If there is no such package or config.
    """
    package, _, config = name.rpartition('::')
    try:
        folder = config_folder(package)
    except FileNotFoundError as error:
        raise ConfigNotFoundError(name, f'cannot be found: {error}') from error
    path = (folder / config).resolve()
    if not path.is_file() or not path.is_relative_to(folder.resolve()):
        known = {file.stem: file for file in folder.glob('*/*.py')}
        near = get_close_matches(Path(config).stem, known, n=3, cutoff=0.6)
        reason = f'is not a config of {package}, whose configs are in {folder}'
        raise ConfigNotFoundError(
            name, reason, [f'{package}::{known[stem].relative_to(folder).as_posix()}' for stem in near]
        )
    return folder / config


def _find_by_name(name: str) -> Optional[ShippedModel]:
    """Model of a name, with or without its recipe.

    Of several recipes for a model, those on COCO come first, then the one with published weights, then the longest.
    """
    models = shipped_models()
    name = name.removesuffix('.py')
    if name in models:
        return models[name]
    recipes = [model for model in models.values() if model.name.startswith(f'{name}_')]
    # 'lite-dino-4scale_h3l1-2p1x3' names no model: it would leave the backbone open.
    if {len(model.name.removeprefix(f'{name}_').split('_')) for model in recipes} != {2}:
        return None
    return max(
        recipes,
        key=lambda model: (model.name.endswith('_coco'), model.weights is not None, _epochs(model.name), model.name),
    )


def _nearest_models(name: str) -> List[str]:
    models = shipped_models()
    known = sorted({*models, *(re.sub(r'_[^_]+_[^_]+$', '', model) for model in models)})
    return get_close_matches(Path(name).name.removesuffix('.py').lower(), known, n=3, cutoff=0.4)


def _epochs(name: str) -> int:
    match = re.search(r'-(\d+)e_', name)
    return int(match[1]) if match else 0
