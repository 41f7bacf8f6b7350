"""The models that this package ships, by name."""

import fnmatch
import re
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Union

import yaml
from mmengine.config import Config

from ..compat import config_folder, config_path


class ZooModel(NamedTuple):
    """A shipped config.

    Attributes:
        name (str): Its file name without the ending.
        config (Path): The file.
        weights (str, optional): Address or file of released weights, None if there are none.
    """

    name: str
    config: Path
    weights: Optional[str]


@lru_cache(maxsize=1)
def zoo_models() -> Dict[str, ZooModel]:
    """All shipped configs by name, with the addresses of weights from the metafiles."""
    folder = config_folder()
    weights = {}
    for metafile in sorted(folder.glob('*/metafile.yml')):
        for model in yaml.safe_load(metafile.read_text()).get('Models', []):
            source = model.get('Weights')
            # A file that is shipped is named as the config is: from the folder that holds both.
            weights[model['Name']] = source if source is None or '://' in source else str(folder.parent / source)
    paths = [path for path in sorted(folder.glob('*/*.py')) if path.parent.name != '_base_']
    return {path.stem: ZooModel(path.stem, path, weights.get(path.stem)) for path in paths}


def list_models(pattern: str = '*', pretrained: bool = False) -> List[str]:
    """Names of the shipped models.

    Args:
        pattern (str): Shell pattern that the names must match, e.g. 'lite-dino*swin*'. Defaults to '*'.
        pretrained (bool): Whether to list only models with released weights. Defaults to False.
    """
    models = zoo_models().values()
    return [m.name for m in models if fnmatch.fnmatch(m.name, pattern) and (m.weights or not pretrained)]


def find_model(name: str) -> ZooModel:
    """Find a model by its name, or by its name without the recipe ('lite-dino-4scale_h3l1-2p1x3_r50').

    Of several recipes for a model the one with released weights is meant, else the longest one.

    Raises:
        ValueError: If there is no such model; the message holds the nearest names.
    """
    models = zoo_models()
    if name in models:
        return models[name]
    recipes = [model for model in models.values() if model.name.startswith(f'{name}_')]
    # 'lite-dino-4scale_h3l1-2p1x3' names no model: it would leave the backbone open.
    if {len(model.name.removeprefix(f'{name}_').split('_')) for model in recipes} != {2}:
        known = sorted({*models, *(re.sub(r'_[^_]+_[^_]+$', '', other) for other in models)})
        near = get_close_matches(name.lower(), known, n=3, cutoff=0.4)
        raise ValueError(
            f'{name!r} is not a model of lite_detr_mmdet; the nearest names are {", ".join(near) or "none"}, '
            'lite_detr_mmdet.list_models() gives all'
        )
    return max(recipes, key=lambda model: (model.weights is not None, _epochs(model.name), model.name))


def _epochs(name: str) -> int:
    match = re.search(r'-(\d+)e_', name)
    return int(match[1]) if match else 0


def get_config(name: Union[str, Path]) -> Config:
    """Read a config.

    Args:
        name (str | Path): Name of a shipped model, with or without its recipe; a file; or a config of an installed
            package, e.g. 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'.

    Raises:
        FileNotFoundError: If there is no such file or package.
        ValueError: If there is no such model; the message holds the nearest names.
    """
    return Config.fromfile(find_config(name))


def find_config(name: Union[str, Path]) -> Path:
    """Path of a config; see :func:`get_config`."""
    name = str(name)
    if '::' in name:
        return Path(config_path(name))
    if not name.endswith('.py'):
        return find_model(name).config
    if not Path(name).is_file():
        raise FileNotFoundError(f'name must be a model, or a config file that exists, got {name!r}')
    return Path(name)
