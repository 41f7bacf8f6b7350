"""The shipped models as their metafiles describe them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Optional

import yaml

PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class ShippedModel:
    """An entry of a metafile.

    Attributes:
        name (str): Name, that of the config without its suffix.
        config (Path): Path of the config.
        collection (str): Collection, named like the folder of the config with hyphens.
        metadata (dict): What the entry says under ``Metadata``. Keys that begin with 'Paper' are figures of the paper.
        results (dict): Metrics that were measured with published weights, empty without weights.
        weights (str, optional): Address of the weights.
    """

    name: str
    config: Path
    collection: str
    metadata: dict
    results: dict = field(default_factory=dict)
    weights: Optional[str] = None


def find_model_zoo() -> Path:
    """Folder that holds model-index.yml and what it lists.

    Raises:
        FileNotFoundError: If the package was installed without it.
    """
    # Installation fills .mim, by copies or by links; a source tree that was never installed has it beside the package.
    folders = [PACKAGE.parent, PACKAGE / '.mim']
    for folder in folders:
        if (folder / 'model-index.yml').is_file():
            return folder
    raise FileNotFoundError(f'no model-index.yml: looked in {", ".join(map(str, folders))}')


def read_model_zoo(root: Optional[Path] = None) -> List[ShippedModel]:
    """All models that the metafiles list, in their order.

    Args:
        root (Path, optional): Folder of model-index.yml. Defaults to None, the one of this package.
    """
    root = root or find_model_zoo()
    models = []
    for metafile in yaml.safe_load((root / 'model-index.yml').read_text())['Import']:
        for entry in yaml.safe_load((root / metafile).read_text())['Models']:
            results = entry.get('Results') or []
            models.append(
                ShippedModel(
                    name=entry['Name'],
                    config=root / entry['Config'],
                    collection=entry['In Collection'],
                    metadata=entry['Metadata'],
                    results={name: value for result in results for name, value in result['Metrics'].items()},
                    weights=entry.get('Weights'),
                )
            )
    return models
