"""Download weights into a cache: resumed after an interruption, checked, usable without a network afterwards."""

import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Optional, Union
from urllib.parse import unquote, urlparse

import torch
from filelock import FileLock
from mmengine.logging import print_log
from tqdm import tqdm

from ..utils import file_sha256
from ..version import __version__

TIMEOUT = 30  # seconds without an answer
BLOCK = 1 << 20


def cached_weights(source: Union[str, Path], sha256: Optional[str] = None) -> Path:
    """Path of weights; those with an address are downloaded once, into the cache of ``torch.hub``.

    The cache is ``checkpoints`` in ``torch.hub.get_dir()``, by default ``~/.cache/torch/hub``; the environment
    variable ``TORCH_HOME`` moves it.

    Args:
        source (str | Path): A file, or an address.
        sha256 (str, optional): Checksum, or its first digits. Defaults to None: the digits at the end of the name, as
            in 'model-1a2b3c4d.pth'.

    Raises:
        FileNotFoundError: If the file does not exist.
        ConnectionError: If the address cannot be reached and the file is not in the cache.
        ValueError: If the checksum is another one; the download is then removed.
    """
    if '://' not in str(source):
        if not Path(source).is_file():
            raise FileNotFoundError(f'weights must be a file that exists or an address, got {str(source)!r}')
        return Path(source)
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / unquote(Path(urlparse(str(source)).path).name)
    with FileLock(f'{path}.lock'):  # of several processes one downloads
        if not path.is_file():
            _download(str(source), path, sha256 or _digits_of_name(path.name))
    return path


def _digits_of_name(name: str) -> Optional[str]:
    match = re.search(r'[-_]([0-9a-f]{8,64})\.[^.]+$', name)
    return match[1] if match else None


def _download(url: str, path: Path, sha256: Optional[str]) -> None:
    partial = path.with_name(f'{path.name}.partial')
    try:
        _fetch(url, partial)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise ConnectionError(
            f'{url} cannot be reached ({getattr(error, "reason", error)}) and {path} is not there. Try again with a '
            f'network, which continues the download, or put the file there yourself'
        ) from error
    found = file_sha256(partial)
    if sha256 is None:
        print_log(f'{path.name}: no checksum in the name, its SHA-256 is {found}', logger='current')
    elif not found.startswith(sha256):
        partial.unlink()
        raise ValueError(f'{url} must have a SHA-256 that starts with {sha256}, got {found}; the file is removed')
    partial.replace(path)


def _fetch(url: str, partial: Path) -> None:
    """Write what the address gives into a file, after what is there already.

    Raises:
        ConnectionError: If the answer ends before it is complete.
    """
    start = partial.stat().st_size if partial.exists() else 0
    headers = {'User-Agent': f'lite_detr_mmdet/{__version__}', **({'Range': f'bytes={start}-'} if start else {})}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing comes after what is there: it is complete, or of another file
            return
        raise
    with response:
        if response.status != 206:
            start = 0  # the server sends everything again
        rest = response.headers.get('Content-Length')
        total = None if rest is None else start + int(rest)
        with (
            open(partial, 'ab' if start else 'wb') as file,
            tqdm(desc=partial.stem, initial=start, total=total, unit='B', unit_scale=True, unit_divisor=1024) as bar,
        ):
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
        if total is not None and partial.stat().st_size != total:
            raise ConnectionError(f'the connection ended after {partial.stat().st_size} of {total} bytes')
