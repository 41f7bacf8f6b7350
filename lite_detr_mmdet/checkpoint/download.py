"""Download weights into a cache: resumed after an interruption, checked, usable without a network afterwards."""

import hashlib
import http.client
import json
import re
import shutil
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Union
from urllib.parse import unquote, urlsplit, urlunsplit

import torch
from filelock import FileLock
from mmengine.logging import print_log
from tqdm import tqdm

from ..output_files import write_text
from ..text import printable
from ..version import __version__
from .errors import CheckpointError
from .files import file_sha256, load_checkpoint_file

TIMEOUT = 30  # seconds without an answer
BLOCK = 1 << 20
RESERVE = 64 << 20  # bytes to leave on the disk
MAX_NAME = 180
NETWORK_ERRORS = (urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError)


class DownloadError(ConnectionError):
    """A URL that cannot be downloaded; the message holds the URL, the reason and what to do."""


class _Interrupted(Exception):
    """The server's answer cannot be used; the message says why."""


class Answer(NamedTuple):
    """What a server says about the file that it sends, kept beside an unfinished download."""

    url: str
    validator: Optional[str]  # a strong ETag, or the date of the last change
    total: Optional[int]


def cached_weights(source: Union[str, Path], sha256: Optional[str] = None) -> Path:
    """Path of weights; a URL is downloaded once, into the cache of ``torch.hub``.

    The cache is ``checkpoints`` in ``torch.hub.get_dir()``, by default ``~/.cache/torch/hub``; the environment
    variable ``TORCH_HOME`` moves it. A cached file's name begins with digits of a hash of its URL, so that files with
    the same name from different places are kept apart. A file enters the cache only if its checksum is right or,
    without a checksum, if it can be read as a checkpoint.

    Args:
        source (str | Path): A file, or a URL (``http`` or ``https``).
        sha256 (str, optional): Checksum, or its first digits. Defaults to None: the digits at the end of the name, as
            in 'model-1a2b3c4d.pth'.

    Raises:
        FileNotFoundError: If the file does not exist.
        DownloadError: If the URL cannot be downloaded and the file is not in the cache; a ConnectionError.
        CheckpointError: If the download has another checksum, or is not a checkpoint; a ValueError.
        ValueError: If the URL does not end with a plain file name.
    """
    if '://' not in str(source):
        if not Path(source).is_file():
            raise FileNotFoundError(f'weights must be a file that exists or a URL, got {str(source)!r}')
        return Path(source)
    url = str(source)
    name = file_name(url)
    digits = (sha256 or digits_of_name(name) or '').lower() or None
    if digits is not None and not re.fullmatch(r'[0-9a-f]{8,64}', digits):
        raise ValueError(f'sha256 must be 8 to 64 hexadecimal digits, got {sha256!r}')
    path = cache_path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{path}.lock'):  # one process downloads, the others wait
        if not _is_intact(path, digits):
            _download(url, path, digits)
    return path


def cache_path(url: str) -> Path:
    """Where the file of a URL is, or will be, in the cache."""
    key = hashlib.sha256(url.partition('#')[0].encode()).hexdigest()[:16]
    return Path(torch.hub.get_dir()) / 'checkpoints' / f'{key}-{file_name(url)}'


def file_name(url: str) -> str:
    """Name of the file at the end of a URL, decoded.

    Raises:
        ValueError: If it is not a plain file name, or the URL is neither ``http`` nor ``https``.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f'weights must be a valid URL, got {url!r}: {error}') from error
    if parts.scheme.lower() not in ('http', 'https') or not parts.netloc:
        raise ValueError(f'weights must be a URL that begins with http:// or https://, got {url!r}')
    name = unquote(parts.path.rpartition('/')[2])
    plain = re.fullmatch(r'[^/\\:*?"<>|]+', name) and name.isprintable() and name.strip(' .') == name.strip()
    if not plain or len(name.encode()) > MAX_NAME:
        raise ValueError(f'weights must be a URL that ends with a plain file name, got {name!r} of {shown(url)}')
    return name


def shown(url: str) -> str:
    """A URL as messages show it: without a password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition('@')[2]))


def digits_of_name(name: str) -> Optional[str]:
    """The digits of a checksum at the end of a file name, None if there are none."""
    match = re.search(r'[-_]([0-9a-f]{8,64})\.[^.]+$', name)
    return match[1] if match else None


def _is_intact(path: Path, digits: Optional[str]) -> bool:
    """Whether a file is in the cache and still is what was put there."""
    if not path.is_file():
        return False
    recorded = _read_record(path.with_name(f'{path.name}.json')).get('sha256')
    expected = digits or (recorded if isinstance(recorded, str) else None)
    if expected:
        intact = file_sha256(path).startswith(expected)
        fault = f'has a SHA-256 that does not start with {expected}'
    else:  # somebody else put it there
        try:
            load_checkpoint_file(path)
            intact, fault = True, ''
        except CheckpointError as error:
            intact, fault = False, error.fault
    if not intact:
        print_log(f'{path} {fault}: downloading it again', logger='current', level=30)
    return intact


def _download(url: str, path: Path, digits: Optional[str]) -> None:
    partial = path.with_name(f'{path.name}.partial')
    try:
        continued = _fetch(url, partial, bool(digits))
        found = file_sha256(partial)
        if continued and digits and not found.startswith(digits):
            partial.unlink()  # the first part may belong to another file: start again
            _fetch(url, partial, False)
            found = file_sha256(partial)
    except (OSError, http.client.HTTPException, _Interrupted, ValueError) as error:
        if isinstance(error, OSError) and not isinstance(error, NETWORK_ERRORS):
            raise  # an error of the disk, not of the network
        reason = getattr(error, 'reason', None) or error
        raise DownloadError(
            f'{shown(url)} cannot be reached ({printable(reason)}) and {path} is not there. Try again with a network '
            'connection, which resumes the download, or put the file there yourself'
        ) from error
    try:
        if digits is None:
            load_checkpoint_file(partial)
            print_log(f'{path.name}: no checksum in the name, its SHA-256 is {found}', logger='current')
        elif not found.startswith(digits):
            raise CheckpointError(
                shown(url), f'must have a SHA-256 that starts with {digits}, got {found}; the file is removed'
            )
    except CheckpointError as error:
        partial.unlink()
        _record_path(partial).unlink(missing_ok=True)
        raise CheckpointError(shown(url), error.fault) from error
    write_text(json.dumps(dict(url=shown(url), sha256=found)), path.with_name(f'{path.name}.json'))
    partial.replace(path)
    _record_path(partial).unlink(missing_ok=True)


def _record_path(partial: Path) -> Path:
    return partial.with_name(f'{partial.name}.json')


def _read_record(path: Path) -> Dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to http, or to any other scheme."""

    def redirect_request(self, request, file, code, message, headers, new_url):
        schemes = ('https',) if request.full_url.lower().startswith('https:') else ('http', 'https')
        if urlsplit(new_url).scheme.lower() not in schemes:
            raise _Interrupted(f'it redirects to {shown(new_url)}, which is not fetched')
        return super().redirect_request(request, file, code, message, headers, new_url)


def _open(url: str, headers: Dict[str, str]):
    # Only urllib's handlers for http and https: file, ftp and data have no place here.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    headers = {'User-Agent': f'lite_detr_mmdet/{__version__}', 'Accept-Encoding': 'identity', **headers}
    return opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)


def _fetch(url: str, partial: Path, has_checksum: bool) -> bool:
    """Download a URL into a file; resume after what is there if that is a part of the same file.

    It is if the server still sends the same validator (``If-Range``), or if a checksum can confirm it later.

    Returns:
        bool: Whether the download was resumed.
    """
    if partial.is_symlink():  # in a folder of several users: what is fetched must not replace the file it points at
        partial.unlink()
    record = _read_record(_record_path(partial))
    validator = record.get('validator') if record.get('url') == shown(url) else None
    start = partial.stat().st_size if partial.is_file() else 0
    if start and not (isinstance(validator, str) or has_checksum):
        start = 0
    headers = {}
    if start:
        headers['Range'] = f'bytes={start}-'
        if isinstance(validator, str) and validator.isprintable():
            headers['If-Range'] = validator
    try:
        response = _open(url, headers)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 416 or not start:
                raise
        # The server has nothing after what is there: it is complete, too long, or part of another file.
        partial.unlink()
        return _fetch(url, partial, has_checksum)
    with response:
        if response.status == 206 and not start:
            raise _Interrupted('it sends a part where the whole was asked for')
        total = _total(response, start, record if record.get('url') == shown(url) else {})
        if total is False:
            partial.unlink()
            return _fetch(url, partial, has_checksum)
        if response.status != 206:
            start, total = 0, _content_length(response)
        _write(response, partial, start, total, Answer(shown(url), _validator(response), total))
    return start > 0


def _total(response, start: int, record: Dict[str, Any]) -> Union[int, bool, None]:
    """Length of the whole file that a part belongs to; False if it is not the part that was asked for."""
    if response.status != 206:
        return None
    match = re.fullmatch(r'bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)', response.headers.get('Content-Range') or '')
    if match is None or int(match[1]) != start:
        return False
    total = int(match[2]) + 1 if match[3] == '*' else int(match[3])
    known = record.get('total')
    return total if known in (None, total) and int(match[2]) == total - 1 else False


def _content_length(response) -> Optional[int]:
    length = response.headers.get('Content-Length') or ''
    return int(length) if re.fullmatch(r'\d{1,18}', length) else None


def _validator(response) -> Optional[str]:
    tag = response.headers.get('ETag')
    if tag and tag.startswith('"'):  # a weak one, W/"...", does not promise the same bytes
        return tag
    return response.headers.get('Last-Modified')


def _write(response, partial: Path, start: int, total: Optional[int], answer: Answer) -> None:
    """Write an answer's body after the first ``start`` bytes of a file.

    Raises:
        _Interrupted: If the body ends before it is complete, or is longer than it says.
        OSError: If the disk has no room for it.
    """
    if total is not None and shutil.disk_usage(partial.parent).free < total - start + RESERVE:
        raise _Interrupted(f'it has {total} bytes, which do not fit on the disk of {partial.parent}')
    write_text(json.dumps(answer._asdict()), _record_path(partial))
    with (
        open(partial, 'ab' if start else 'wb') as file,
        tqdm(desc=partial.stem, initial=start, total=total, unit='B', unit_scale=True, unit_divisor=1024) as bar,
    ):
        while block := response.read(BLOCK):
            if shutil.disk_usage(partial.parent).free < len(block) + RESERVE:
                break  # a server need not say how much it sends, nor ever end
            file.write(block)
            bar.update(len(block))
    size = partial.stat().st_size
    if block:
        partial.unlink()
        raise _Interrupted(f'it has more than {size} bytes, which do not fit on the disk of {partial.parent}')
    if total is not None and size != total:
        raise _Interrupted(f'the connection ended after {size} of {total} bytes')
