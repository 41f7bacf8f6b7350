"""Find the shipped config that builds the model of a state dict, and the options that it needs on top."""

from copy import deepcopy
from functools import lru_cache
from typing import Any, Dict, List, NamedTuple, Tuple

from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict

from ..zoo import config_folder
from .model_options import DEFAULTS

MISSING = object()


class MatchingConfig(NamedTuple):
    """A config and the options that make it build the model.

    Attributes:
        name (str): The config as written in ``_base_``: 'lite_detr_mmdet::...' or 'mmdet::...'.
        path (str): The file.
        options (dict): Options of the config by their dotted names.
    """

    name: str
    path: str
    options: Dict[str, Any]

    def read(self) -> Config:
        """The config with the options."""
        cfg = Config.fromfile(self.path)
        cfg.merge_from_dict(self.options)
        return cfg

    def command_line(self) -> str:
        """The options as command-line arguments of the tools."""
        values = [f'{name}={_argument(value)}' for name, value in self.options.items()]
        return ' '.join(['--cfg-options', *values]) if values else ''


def find_matching_config(options: Dict[str, Any]) -> MatchingConfig:
    """Find the config that needs the fewest changes.

    Args:
        options (dict): Options of ``cfg.model`` from :func:`.model_options.model_options`.

    Raises:
        ValueError: If no config has the detector and the backbone.
    """
    best = None
    for name, path, model, max_epochs in _candidates():
        if model.type != options['type'] or model.backbone.type != options['backbone.type']:
            continue
        different = {f'model.{key}': value for key, value in options.items() if _value(model, key) != value}
        # Recipes of the same model differ only in their schedule: the papers use the longest.
        rank = (len(different), -max_epochs, name)
        if best is None or rank < best[0]:
            best = rank, MatchingConfig(name, path, different)
    if best is None:
        raise ValueError(f'there is no config of {options["type"]} with the backbone {options["backbone.type"]}')
    return best[1]


def check_weights_fit(cfg: Config, state_dict: dict) -> None:
    """Build the model of a config and compare names and shapes with those of the weights.

    Raises:
        ValueError: If weights are missing, are unexpected or have other shapes.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in MODELS.build(deepcopy(cfg.model)).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    if expected != found:
        missing = sorted(expected.keys() - found.keys())
        extra = sorted(found.keys() - expected.keys())
        shapes = [
            f'{name}: {found[name]} for {expected[name]}'
            for name in sorted(expected.keys() & found.keys())
            if expected[name] != found[name]
        ]
        raise ValueError(f'the weights do not fit the config: {missing=}, {extra=}, {shapes=}')


@lru_cache(maxsize=1)
def _candidates() -> List[Tuple[str, str, ConfigDict, int]]:
    """Name, path, model and epochs of the COCO configs of this package and of mmdet's hosts."""
    folders = [('lite_detr_mmdet', path) for path in sorted(config_folder().iterdir())]
    folders += [('mmdet', config_folder('mmdet') / name) for name in ('dino', 'deformable_detr')]
    found = []
    for package, folder in folders:
        for path in sorted(folder.glob('*_coco.py')):
            cfg = Config.fromfile(path)
            max_epochs = cfg.train_cfg.get('max_epochs', 0)  # some recipes count iterations
            found.append((f'{package}::{folder.name}/{path.name}', str(path), cfg.model, max_epochs))
    return found


def _value(model: dict, key: str) -> Any:
    """Value of a dotted key, as a list where it is a sequence."""
    value: Any = model
    for name in key.split('.'):
        value = value.get(name, MISSING) if isinstance(value, dict) else MISSING
    if value is MISSING:
        value = DEFAULTS.get(key)
    return list(value) if isinstance(value, tuple) else value


def _argument(value: Any) -> str:
    return '[' + ','.join(map(str, value)) + ']' if isinstance(value, list) else str(value)
