"""Reading and writing checkpoint files: restricted unpickling, atomic writes, hashes."""

import hashlib
import os
import pickle
import re
import tempfile
from pathlib import Path
from typing import Sequence, Union

import torch


def load_checkpoint_file(path: Union[str, Path], allowed: Sequence[type] = ()) -> dict:
    """Read a checkpoint with torch's restricted unpickler.

    Args:
        path (str | Path): The file.
        allowed (sequence[type]): Classes that the file may hold beside tensors, plain containers and what mmengine's
            Runner saves. Defaults to ().

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no checkpoint, or holds objects whose loading could run code.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'must be a checkpoint file that exists, got {str(path)!r}')
    try:
        with torch.serialization.safe_globals(list(allowed)):
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f'{path} is refused: {_refusal(error)}') from error
    except (EOFError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} cannot be read as a checkpoint: {error}') from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f'{path} must hold a dict, got {type(checkpoint).__name__}')
    return checkpoint


def _refusal(error: pickle.UnpicklingError) -> str:
    """What the file asks for, in a sentence; torch's own message advises to load it without restrictions."""
    names = re.findall(r'GLOBAL ([\w.]+)', str(error)) or re.findall(r'asks for [^.]*', str(error))
    if not names:
        return 'it is damaged or not a checkpoint of torch'
    return (
        f'it holds more than tensors and plain values, namely {", ".join(dict.fromkeys(names))}, and loading that '
        'could run code of the file. Save a dict of tensors where the file comes from, e.g. torch.save({"model": '
        'model.state_dict()}, path)'
    )


def save_checkpoint_file(checkpoint: dict, path: Union[str, Path]) -> None:
    """Write a checkpoint such that the file is either there completely or not at all.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f'must be a file in a folder that exists, got {str(path)!r}')
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.', suffix='.partial')
    try:
        with os.fdopen(descriptor, 'wb') as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(partial, 0o666 & ~umask)  # mkstemp makes files that only the owner may read
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def file_sha256(path: Union[str, Path]) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest() if hasattr(hashlib, 'file_digest') else _sha256(file)


def _sha256(file) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no file_digest
    for block in iter(lambda: file.read(1 << 20), b''):
        digest.update(block)
    return digest.hexdigest()
