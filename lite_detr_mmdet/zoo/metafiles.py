"""The shipped models, as the folders of configs and their metafiles describe them."""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Optional

import yaml

from .files import shipped_folder


@dataclass(frozen=True)
class ShippedModel:
    """A shipped config, with what its metafile says about it.

    Attributes:
        name (str): Name of the config file without its suffix.
        config (Path): The config file.
        collection (str): Collection, named like the folder of the config with hyphens.
        metadata (dict): What the entry says under ``Metadata``. Keys that begin with 'Paper' are figures of the paper.
        results (dict): Metrics that were measured with published weights, empty without weights.
        weights (str, optional): URL or file of the published weights, None if there are none.
    """

    name: str
    config: Path
    collection: str = ''
    metadata: Dict[str, Any] = field(default_factory=dict)
    results: Dict[str, float] = field(default_factory=dict)
    weights: Optional[str] = None


def read_metafiles(root: Optional[Path] = None) -> List[ShippedModel]:
    """All models that the metafiles list, in their order.

    Args:
        root (Path, optional): Folder of ``model-index.yml``. Defaults to None: that of this package.

    Raises:
        ValueError: If a metafile, a config or weights are named by a path that leads out of the folder.
    """
    root = root or shipped_folder()
    models = []
    for metafile in yaml.safe_load((root / 'model-index.yml').read_text())['Import']:
        for entry in yaml.safe_load(_path_in(root, metafile).read_text())['Models']:
            weights = entry.get('Weights')
            results = entry.get('Results') or []
            models.append(
                ShippedModel(
                    name=entry['Name'],
                    config=_path_in(root, entry['Config']),
                    collection=entry['In Collection'],
                    metadata=entry['Metadata'],
                    results={name: value for result in results for name, value in result['Metrics'].items()},
                    # The path of weights shipped as a file is relative to the same folder as the config's.
                    weights=weights if weights is None or '://' in weights else str(_path_in(root, weights)),
                )
            )
    return models


def _path_in(root: Path, name: str) -> Path:
    """Path that a metafile names; links are not followed, since installations may consist of them."""
    if Path(name).is_absolute() or '..' in Path(name).parts:
        raise ValueError(f'a metafile must name files in {root}, got {name!r}')
    return root / name


@lru_cache(maxsize=1)
def shipped_models() -> Dict[str, ShippedModel]:
    """All shipped configs by name; a config that no metafile lists has only a name and a file."""
    listed = {model.name: model for model in read_metafiles()}
    paths = sorted((shipped_folder() / 'configs').glob('[!_]*/*.py'))
    return {path.stem: listed.get(path.stem, ShippedModel(path.stem, path)) for path in paths}
