"""Read checkpoint files, write them atomically, and hash them."""

import hashlib
import os
from pathlib import Path
from typing import Union

import torch

from ..output_files import write_whole
from .content import check_checkpoint
from .reader import read_checkpoint


def load_checkpoint_file(path: Union[str, Path]) -> dict:
    """Read a checkpoint: a dict of tensors and plain values, as written by training, publishing and the converter.

    Args:
        path (str | Path): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is not a checkpoint, is damaged, or holds objects whose loading could run code.
    """
    return check_checkpoint(path, read_checkpoint(path))


def save_checkpoint_file(checkpoint: dict, path: Union[str, Path]) -> None:
    """Write a checkpoint atomically: the file is there completely or not at all.

    Raises:
        FileNotFoundError: If the folder does not exist.
        FileExistsError: If the path is a link; its target may belong to somebody else.
    """
    write_whole(path, lambda file: torch.save(checkpoint, file))


def check_target(source: Union[str, Path], target: Union[str, Path], overwrite: bool = False) -> None:
    """Check that writing a file does not damage another one.

    Args:
        source (str | Path): What the file is made from.
        target (str | Path): The file.
        overwrite (bool): Whether it may already exist. Defaults to False.

    Raises:
        FileExistsError: If it is the source or a link, or already exists.
    """
    target = Path(target)
    if target.exists() and Path(source).exists() and os.path.samefile(source, target):
        raise FileExistsError(f'must be another file than the source, got {str(target)!r}')
    if target.is_symlink():
        raise FileExistsError(f'must not be a link, got {str(target)!r}, which points at {os.readlink(target)!r}')
    if target.exists() and not overwrite:
        raise FileExistsError(f'{target} already exists: name another file, or allow to overwrite it')


def file_sha256(path: Union[str, Path]) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()
