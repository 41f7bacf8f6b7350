"""Names and URLs of published weights: where they come from, and where they are on this machine.

A name of ``init_cfg`` or ``load_from`` such as ``torchvision://resnet50`` stands for a URL. mmengine looks it up in an
installed torchvision; the same URLs are in a table that mmengine ships, so that torchvision is not needed.
"""

import json
import os
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Dict, List

import mmengine
import torch

from ..checkpoint import CheckpointError, DownloadError, cached_weights, file_sha256
from ..checkpoint.download import digits_of_name, file_name

FOLDER_VARIABLE = 'LITE_DETR_PRETRAINED'
# Prefix of a name -> table of mmengine.
TABLES = {
    'torchvision://': 'torchvision_0.12.json',
    'modelzoo://': 'torchvision_0.12.json',
    'open-mmlab://': 'openmmlab.json',
    'openmmlab://': 'openmmlab.json',
}


@cache
def published_urls(table: str) -> Dict[str, str]:
    """URL of each name in a table of mmengine, those without one left out."""
    urls = json.loads((Path(mmengine.__file__).parent / 'hub' / table).read_text())
    return {name: url for name, url in urls.items() if url}


def pretrained_url(name: str) -> str:
    """URL that a name stands for; a URL stands for itself.

    Raises:
        ValueError: If there is no such name; the message holds the nearest ones.
    """
    for prefix, table in TABLES.items():
        if name.startswith(prefix):
            urls = published_urls(table)
            key = name.removeprefix(prefix)
            if key not in urls:
                nearest = [f'{prefix}{other}' for other in get_close_matches(key, urls, n=3, cutoff=0.4)]
                raise ValueError(f'{name} is not a name of published weights. Nearest: {", ".join(nearest) or "none"}')
            return urls[key]
    return name


def pretrained_file(name: str) -> Path:
    """File of published weights; downloaded if it is on this machine in none of these places.

    1. The folder that the environment variable ``LITE_DETR_PRETRAINED`` names.
    2. The cache of ``torch.hub``, where torchvision and mmengine put it too.

    A file whose name ends in digits of its SHA-256 is used only if it has them.

    Args:
        name (str): ``torchvision://NAME``, ``open-mmlab://NAME`` or a URL.

    Raises:
        ValueError: If there is no such name.
        CheckpointError: If the file in the folder is another one than its name says.
        DownloadError: If it cannot be downloaded; the message says which file to put where.
    """
    url = pretrained_url(name)
    file = file_name(url)
    digits = digits_of_name(file)
    for folder in _folders():
        path = folder / file
        if not path.is_file():
            continue
        if digits is None or file_sha256(path).startswith(digits):
            return path
        if folder != _hub_folder():
            raise CheckpointError(path, f'must have a SHA-256 that starts with {digits}, as its name says')
    try:
        return cached_weights(url)
    except DownloadError as error:
        raise DownloadError(
            f'{error}.\n{name} needs the file {file}. Without a network, get {url} elsewhere and put it into '
            f'{_hub_folder()}, or into a folder that the environment variable {FOLDER_VARIABLE} names'
        ) from error


def _hub_folder() -> Path:
    return Path(torch.hub.get_dir()) / 'checkpoints'


def _folders() -> List[Path]:
    named = os.environ.get(FOLDER_VARIABLE)
    return [Path(named).expanduser(), _hub_folder()] if named else [_hub_folder()]
