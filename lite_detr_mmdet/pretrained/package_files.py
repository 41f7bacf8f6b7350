"""Weights that come as files of a pip package: ``package://package_name/folder/file.pth``."""

import importlib.util
from pathlib import Path

from ..checkpoint import CheckpointError, file_sha256
from ..checkpoint.download import digits_of_name

PREFIX = 'package://'


def package_file(name: str) -> Path:
    """Path of a file in an installed package. The package is found, not imported: none of its code runs.

    Args:
        name (str): ``package://``, the import name of the package, and the path of the file in it.

    Raises:
        FileNotFoundError: If the package is not installed, or has no such file; the message says how to install it.
        CheckpointError: If the file is another one than the digits of a SHA-256 in its name say.
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
    digits = digits_of_name(file.name)
    if digits is not None and not file_sha256(file).startswith(digits):
        raise CheckpointError(file, f'must have a SHA-256 that starts with {digits}, as its name says')
    return file
