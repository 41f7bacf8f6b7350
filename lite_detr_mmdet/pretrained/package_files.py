"""Weights that come as files of a pip package: ``package://package_name/folder/file.pth``."""

import importlib.util
from pathlib import Path
from typing import Optional

import torch

PREFIX = 'package://'


def package_file(name: str) -> Path:
    """Path of a file in an installed package. The package is found, not imported: none of its code runs.

    Args:
        name (str): ``package://``, the import name of the package, and the path of the file in it.

    Raises:
        FileNotFoundError: If the package is not installed, or has no such file; the message says how to install it.
    """
    package, _, path = name.removeprefix(PREFIX).partition('/')
    if not package.isidentifier() or not path or '..' in Path(path).parts:
        raise FileNotFoundError(f"must be '{PREFIX}', a package and a path in it, got {name!r}")
    install = f'pip install {package.replace("_", "-")}'
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f'{name} is a file of a package that is not installed. Install it with:\n  {install}')
    file = Path(spec.origin).parent / path
    if not file.is_file():
        raise FileNotFoundError(f'{file} does not exist. Install its package anew with:\n  {install}')
    return file


def load_from_package(filename: str, map_location: Optional[str] = None) -> dict:
    """Loader of mmengine for names that start with ``package://``."""
    return torch.load(package_file(filename), map_location=map_location, weights_only=True)
