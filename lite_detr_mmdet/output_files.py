"""Files that a command writes: refused before the work if they cannot be written, and never there by half."""

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import Callable, Union


def check_output(path: Union[str, Path]) -> None:
    """Check that a file can be written, before work whose result goes there.

    Args:
        path (str | Path): The file. It may exist.

    Raises:
        FileNotFoundError: If its folder does not exist.
        FileExistsError: If it is a link; its target may belong to somebody else.
        IsADirectoryError: If it is a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f'must be a file in a folder that exists, got {str(path)!r}')
    _check_kind(path)


def _check_kind(path: Path) -> None:
    if path.is_symlink():
        raise FileExistsError(f'must not be a link, got {str(path)!r}, which points at {os.readlink(path)!r}')
    if path.is_dir():
        raise IsADirectoryError(f'must be a file to write, got the folder {str(path)!r}')


def output_file(text: str) -> Path:
    """Type of a command's option that names a file to write; :func:`prepare_output` may make its folder.

    Args:
        text (str): What was given.

    Raises:
        argparse.ArgumentTypeError: If it is empty, a folder, a link, or lies below a file.
    """
    path = Path(text)
    if text.endswith(('/', os.sep)):
        raise argparse.ArgumentTypeError(f'must be a file to write, got the folder {text!r}')
    try:
        _check_kind(path)
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    existing = next(parent for parent in path.parents if parent.exists())
    if not existing.is_dir():
        raise argparse.ArgumentTypeError(f'must lie in a folder, got {text!r}, below the file {str(existing)!r}')
    return path


def output_pair(text: str) -> Path:
    """Type of a command's option that names two files to write, a record ``text``.json and a page ``text``.md.

    Args:
        text (str): What was given, without suffix.

    Raises:
        argparse.ArgumentTypeError: If it is empty, or one of the files cannot be written; see :func:`output_file`.
    """
    if not Path(text).name or text.endswith(('/', os.sep)):
        raise argparse.ArgumentTypeError(f'must be a file to write, without suffix, got {text!r}')
    for suffix in ('.json', '.md'):
        output_file(f'{text}{suffix}')
    return Path(text)


def prepare_output(path: Union[str, Path]) -> Path:
    """Make the folder of a file that is to be written; return the file's path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_whole(path: Union[str, Path], write: Callable) -> None:
    """Let ``write`` fill a temporary file, then rename it.

    The bytes are on the disk before the name is: neither a killed process nor a power failure leaves half a file.

    Args:
        path (str | Path): The file.
        write (callable): Gets the open binary file.

    Raises:
        OSError: As :func:`check_output` does.
    """
    path = Path(path)
    check_output(path)
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.', suffix='.partial')
    try:
        with os.fdopen(descriptor, 'wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(partial, 0o666 & ~umask)  # mkstemp makes files that only the owner may read
        os.replace(partial, path)
        _sync_folder(path.parent)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def write_text(text: str, path: Union[str, Path]) -> None:
    """Write a text file in UTF-8 as :func:`write_whole` does."""
    write_whole(path, lambda file: file.write(text.encode()))


def copy_whole(source: Union[str, Path], path: Union[str, Path]) -> None:
    """Copy a file to ``path`` as :func:`write_whole` writes: for what a library writes to a path of its own."""
    with open(source, 'rb') as content:
        write_whole(path, lambda file: shutil.copyfileobj(content, file))


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, if the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems cannot
    finally:
        os.close(descriptor)
