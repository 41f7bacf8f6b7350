"""Reads torch checkpoint files, in today's format and in the one before version 1.6, without trusting them."""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Dict, List, Tuple, Union

import torch

from .content import check_content
from .errors import CheckpointError, Fault, Refusal
from .symbols import SYMBOLS, Storage, StorageKind, is_count
from .unpickler import RestrictedUnpickler

LEGACY_BEGINNING = b'\x80\x02\x8a\x0a'  # a pickled integer of ten bytes: the magic number
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
OTHER_FILES = {
    b'<': 'is a web page, not a checkpoint',
    b'version https://git-lfs': 'is a pointer of Git LFS, not the file itself',
    b'{': 'is JSON, not a checkpoint',
    b'\x1f\x8b': 'is compressed by gzip: unpack it first',
    b'\x93NUMPY': 'is a numpy array, not a checkpoint',
}
REMEDY = (
    'and loading that could run code from the file. Save a dict of tensors where the file comes from, e.g. '
    'torch.save({"model": model.state_dict()}, path)'
)


def read_checkpoint(path: Union[str, Path]) -> Any:
    """Read a file written by ``torch.save``: tensors on the CPU, plain values, numeric numpy arrays, log histories.

    Nothing in the file can run code, reach outside the file or take more memory than it has bytes.

    Args:
        path (str | Path): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, is not a checkpoint, or holds anything else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'must be a checkpoint file that exists, got {str(path)!r}')
    try:
        with open(path, 'rb') as file:
            content = _read(file, os.fstat(file.fileno()).st_size)
        check_content(content)
        return content
    except Refusal as error:
        raise CheckpointError(path, f'is refused: {error}, {REMEDY}') from error
    except Fault as error:
        raise CheckpointError(path, f'cannot be read as a checkpoint: {error}') from error
    except OSError:
        raise  # an error of the disk, not of the contents
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError) as error:
        raise CheckpointError(path, f'cannot be read as a checkpoint: it is damaged ({error})') from error
    except (ValueError, TypeError, KeyError, RuntimeError, IndexError, OverflowError, MemoryError) as error:
        # Whatever is left is damage that no check above names; it must not look like the caller's fault.
        raise CheckpointError(
            path, f'cannot be read as a checkpoint: it is damaged ({type(error).__name__}: {error})'
        ) from error


def _read(file: BinaryIO, size: int) -> Any:
    beginning = file.read(32)
    file.seek(0)
    if beginning.startswith(b'PK\x03\x04'):
        return _ZipReader(file, size).read()
    if beginning.startswith(LEGACY_BEGINNING):
        return _read_legacy(file, size)
    if not beginning:
        raise Fault('it is empty')
    for start, meaning in OTHER_FILES.items():
        if beginning.lstrip().startswith(start):
            raise Fault(f'it {meaning}')
    raise Fault('it does not begin like a file written by torch.save')


def _check_persistent_id(identity: Any, lengths: Tuple[int, ...]) -> Tuple[StorageKind, str, int]:
    """Type, key and length of a storage."""
    if not isinstance(identity, tuple) or len(identity) not in lengths or identity[0] != 'storage':
        raise Fault('it refers to something outside the file')
    kind, key, _, numel = identity[1:5]
    if not isinstance(kind, StorageKind) or not isinstance(key, str) or not is_count(numel):
        raise Fault('it refers to data that is not there')
    return kind, key, numel


def _fill(storage: torch.UntypedStorage, file: BinaryIO) -> None:
    """Read the bytes of a storage."""
    if storage.nbytes() == 0:
        return
    view = memoryview(torch.empty(0, dtype=torch.uint8).set_(storage).numpy())
    done = 0
    while done < len(view):
        count = file.readinto(view[done : done + (16 << 20)])
        if not count:
            raise Fault('it is cut off')
        done += count


class _ZipReader:
    """The format of torch 1.6 and later: an archive with ``data.pkl`` and a file for the bytes of each storage."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        try:
            self.archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise Fault('it is cut off or damaged: the table at the end of the archive is missing') from error
        self.entries: Dict[str, zipfile.ZipInfo] = {}
        for info in self.archive.infolist():
            if info.filename in self.entries:
                raise Fault(f'it holds {info.filename!r} twice')
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
                raise Fault('it is a packed archive (compressed or encrypted), which torch does not write')
            if not 0 <= info.header_offset < size:
                raise Fault('it is damaged: its table points outside of it')
            self.entries[info.filename] = info
        if sum(info.file_size for info in self.entries.values()) > size:
            raise Fault('its parts claim to be larger than the file')
        folders = [name.rpartition('/')[0] for name in self.entries if name.rpartition('/')[2] == 'data.pkl']
        if len(folders) != 1:
            raise Fault('it is an archive of something else: there is no data.pkl')
        self.folder = folders[0]
        if f'{self.folder}/constants.pkl' in self.entries:
            raise Refusal('it is a TorchScript program')
        self.size = size
        self.storages: Dict[str, torch.UntypedStorage] = {}

    def read(self) -> Any:
        if f'{self.folder}/byteorder' in self.entries and self._bytes('byteorder') != b'little':
            raise Fault('it was written on a big-endian machine')
        data = self._bytes('data.pkl')
        return RestrictedUnpickler(io.BytesIO(data), len(data), SYMBOLS, self._storage).load()

    def _bytes(self, name: str) -> bytes:
        with self.archive.open(self.entries[f'{self.folder}/{name}']) as file:
            return file.read()

    def _storage(self, identity: Any) -> Storage:
        kind, key, numel = _check_persistent_id(identity, (5,))
        entry = self.entries.get(f'{self.folder}/data/{key}')
        if entry is None:
            raise Fault(f'the data of tensor {key!r} is missing')
        if numel * (kind.dtype.itemsize if kind.dtype else 1) > entry.file_size:
            raise Fault(f'the data of tensor {key!r} is shorter than it claims')
        if key not in self.storages:
            storage = torch.UntypedStorage(entry.file_size)
            with self.archive.open(entry) as file:
                _fill(storage, file)  # zipfile compares the checksum when it gives the last byte
            self.storages[key] = storage
        return Storage(self.storages[key], kind.dtype)


def _read_legacy(file: BinaryIO, size: int) -> Any:
    """The format before torch 1.6: pickles, then the bytes of the storages one after the other."""
    storages: Dict[str, Tuple[torch.UntypedStorage, int]] = {}
    claimed = 0

    def load(persistent_load=None) -> Any:
        return RestrictedUnpickler(file, size, SYMBOLS, persistent_load or no_storage).load()

    def no_storage(identity: Any) -> Any:
        raise Fault('it refers to data before there is any')

    def load_storage(identity: Any) -> Storage:
        nonlocal claimed
        kind, key, numel = _check_persistent_id(identity, (5, 6))
        if kind.dtype is None or (len(identity) == 6 and identity[5] is not None):
            raise Fault('it holds views of storages, which torch has not written since version 0.4')
        if key not in storages:
            claimed += numel * kind.dtype.itemsize
            if claimed > size:
                raise Fault('its data claims to be larger than the file')
            storages[key] = torch.UntypedStorage(numel * kind.dtype.itemsize), kind.dtype.itemsize
        return Storage(storages[key][0], kind.dtype)

    if load() != LEGACY_MAGIC or load() != LEGACY_VERSION:
        raise Fault('it does not begin like a file written by torch.save')
    system = load()
    if not isinstance(system, dict) or system.get('little_endian') is not True:
        raise Fault('it was written on a big-endian machine')
    content = load(load_storage)
    keys: List[Any] = load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise Fault('its list of data does not match its tensors')
    for key in keys:
        storage, itemsize = storages[key]
        (numel,) = struct.unpack('<q', file.read(8))
        if numel * itemsize != storage.nbytes():
            raise Fault(f'the data of tensor {key!r} has a different length than it claims')
        _fill(storage, file)
    return content
