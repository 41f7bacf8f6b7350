"""The names that checkpoints may use, and what they stand for: tensors, numeric arrays, log histories."""

import math
import re
from collections import Counter, OrderedDict
from typing import Any, Dict, NamedTuple, Optional, Tuple

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from .errors import Fault, Refusal
from .unpickler import Shell, Symbol, check_keys

STATISTICS_METHODS = ('min', 'max', 'mean', 'current')
MAX_DIMENSIONS = 32
OTHER_NUMBERS = ('uint16', 'uint32', 'uint64', 'float8_e4m3fn', 'float8_e5m2')
# When copied, an expanded tensor takes more memory than the file has bytes: allowed up to this many numbers.
MAX_EXPANDED = 1 << 20
NUMBER_KINDS = re.compile(r'([<>=|]?)(b1|i[1248]|u[1248]|f[248]|\?)')
STORAGES = {
    'Double': torch.float64,
    'Float': torch.float32,
    'Half': torch.float16,
    'BFloat16': torch.bfloat16,
    'Long': torch.int64,
    'Int': torch.int32,
    'Short': torch.int16,
    'Char': torch.int8,
    'Byte': torch.uint8,
    'Bool': torch.bool,
    'ComplexDouble': torch.complex128,
    'ComplexFloat': torch.complex64,
}

# Types that a tensor may have; torch has others, of which its own functions know little.
NUMBERS = {
    *STORAGES.values(),
    *(getattr(torch, name) for name in OTHER_NUMBERS if hasattr(torch, name)),
}


class StorageKind(NamedTuple):
    """Type of a storage; None for untyped bytes."""

    dtype: Optional[torch.dtype]


class Storage(NamedTuple):
    """Bytes of a file, and their type."""

    data: torch.UntypedStorage
    dtype: Optional[torch.dtype]


def _short(value: Any) -> str:
    """A name in messages; anything else as its type, since lists within lists can take forever to write out."""
    return repr(value[:100]) if isinstance(value, str) else f'a {type(value).__name__}'


def is_count(value: Any) -> bool:
    """Whether a value is an integer of at least 0 that fits a machine word."""
    return type(value) is int and 0 <= value < 1 << 62


def rebuild_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any = False, hooks: Any = None, metadata=None
) -> Tensor:
    """View of a storage, within its bounds."""
    if not isinstance(storage, Storage) or storage.dtype is None:
        raise Fault('it holds a tensor without values')
    return _view(storage.data, storage.dtype, offset, size, stride, requires_grad, hooks)


def rebuild_tensor_of_type(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any, metadata=None
) -> Tensor:
    """View of a storage whose type is given separately."""
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise Fault('it holds a tensor without values')
    if dtype not in NUMBERS:
        raise Refusal(f'it holds a tensor of {dtype}, which models do not have')
    return _view(storage.data, dtype, offset, size, stride, requires_grad, hooks)


def _view(
    data: torch.UntypedStorage, dtype: torch.dtype, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any
) -> Tensor:
    size, stride = (tuple(item) if isinstance(item, (tuple, list)) else (None,) for item in (size, stride))
    if not all(map(is_count, (offset, *size, *stride))) or len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise Fault('it holds a tensor with an invalid shape')
    if hooks:
        raise Refusal('it holds a tensor with hooks')
    available = data.nbytes() // dtype.itemsize
    numel = math.prod(size)
    needed = offset + (sum((length - 1) * step for length, step in zip(size, stride)) + 1 if numel else 0)
    if needed > available or numel > max(available, MAX_EXPANDED):
        raise Fault(f'it holds a tensor of shape {size} that is larger than its data')
    tensor = torch.empty(0, dtype=dtype).set_(data, offset, size, stride)
    if requires_grad and (dtype.is_floating_point or dtype.is_complex):
        tensor.requires_grad_()
    return tensor


def rebuild_parameter(data: Any, requires_grad: Any, hooks: Any) -> torch.nn.Parameter:
    """A parameter from a tensor that was rebuilt before."""
    if not isinstance(data, Tensor) or hooks:
        raise Fault('it holds a parameter that is not a tensor')
    return torch.nn.Parameter(data.detach(), bool(requires_grad) and data.is_floating_point())


def make_size(values: Any) -> torch.Size:
    """A shape."""
    if not isinstance(values, (tuple, list)) or not all(map(is_count, values)):
        raise Fault('it holds an invalid shape')
    return torch.Size(values)


def make_device(*args: Any) -> str:
    """A device, as its name; everything is read to the CPU."""
    if not args or not isinstance(args[0], str) or not all(map(is_count, args[1:])):
        raise Fault('it holds a device without a name')
    return ':'.join(map(str, args))


def encode_text(text: Any, encoding: Any) -> bytes:
    """Bytes, which older protocols write as text."""
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise Fault('it holds bytes in an unknown encoding')
    return text.encode('latin-1')


def history_method(owner: Any, name: Any) -> str:
    """Stand in for ``getattr``, with which pickle looks up the statistics methods of ``HistoryBuffer``."""
    if not isinstance(owner, Symbol) or owner.new is not HistoryShell or name not in STATISTICS_METHODS:
        raise Refusal(f'it asks for attribute {_short(name)} of {getattr(owner, "name", type(owner).__name__)}')
    return name


class DtypeShell(Shell):
    """A numpy type of numbers."""

    def __init__(self, name: Any, align: Any = False, copy: Any = True) -> None:
        super().__init__()
        match = NUMBER_KINDS.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            raise Refusal(f'it holds an array of {_short(name)}: only numeric arrays are read')
        self.kind = match[2]

    def build(self, state: Any) -> np.dtype:
        # With fields, names or subtypes the bytes of an array would mean something other than numbers.
        if not isinstance(state, tuple) or len(state) < 5 or any(item is not None for item in state[2:5]):
            raise Refusal('it holds an array whose type is not a number')
        if state[1] not in ('<', '>', '=', '|'):
            raise Fault('it holds an array of unknown byte order')
        return np.dtype(self.kind).newbyteorder(state[1])


def make_dtype(name: Any, align: Any = False, copy: Any = True) -> DtypeShell:
    """A numpy type, to be completed by its state."""
    return DtypeShell(name, align, copy)


def make_scalar(dtype: Any, data: Any) -> Any:
    """A numpy number as a Python number."""
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes) or len(data) != dtype.itemsize:
        raise Fault('it holds an invalid number')
    return np.frombuffer(data, dtype)[0].item()


class ArrayShell(Shell):
    """A numpy array of numbers."""

    def build(self, state: Any) -> np.ndarray:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Fault('it holds an array without a shape')
        _, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, np.dtype):
            raise Refusal('it holds an array whose type is not a number')
        if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS or not all(map(is_count, shape)):
            raise Fault('it holds an array with an invalid shape')
        if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
            raise Fault('it holds an array whose size does not match its data')
        array = np.frombuffer(data, dtype).reshape(shape, order='F' if is_fortran is True else 'C')
        return array.astype(dtype.newbyteorder('='))


def reconstruct_array(kind: Any, shape: Any, typecode: Any) -> ArrayShell:
    """An array, to be completed by its state."""
    return ArrayShell()


class HistoryShell(Shell):
    """A history of mmengine's logs."""

    def build(self, state: Any) -> HistoryBuffer:
        state = state if isinstance(state, dict) else {}
        return make_history(state.get('_log_history'), state.get('_count_history'), state.get('max_length'))


def make_history(values: Any, counts: Any, max_length: Any) -> HistoryBuffer:
    """A history of numbers, checked.

    Args:
        values (np.ndarray): Logged numbers, (n,).
        counts (np.ndarray): Weight of each number, (n,).
        max_length (int): Length beyond which the oldest entries are dropped.
    """
    arrays = all(
        isinstance(item, np.ndarray) and item.ndim == 1 and item.dtype.kind in 'biuf' for item in (values, counts)
    )
    if not arrays or len(values) != len(counts) or not is_count(max_length) or len(values) > max_length:
        raise Fault('it holds a log history that is not a list of numbers')
    history = HistoryBuffer([], [], max_length)
    history._log_history, history._count_history = values, counts
    return history


class NamespaceShell(Shell):
    """Arguments of a command line, as a dict."""

    def build(self, state: Any) -> dict:
        if not isinstance(state, dict):
            raise Fault('it holds arguments that are not a table')
        return dict(state)


def make_path(*parts: Any) -> str:
    """A path, as text."""
    if not all(isinstance(part, str) for part in parts):
        raise Fault('it holds a path that is not text')
    return '/'.join(parts).replace('//', '/')


def _first_of_pair(item: Any) -> Any:
    if not isinstance(item, (list, tuple)) or len(item) != 2:
        raise Fault('it holds an OrderedDict of something else')
    return item[0]


def make_container(kind: type):
    """Stand in for a call of a container's class."""

    def make(items: Any = ()) -> Any:
        if not isinstance(items, (list, tuple, dict)):
            raise Fault(f'it holds a {kind.__name__} of something else')
        if not isinstance(items, dict):
            check_keys(map(_first_of_pair, items) if kind is OrderedDict else items)
        return kind(items)

    return make


def _symbols() -> Dict[str, Any]:
    table: Dict[str, Any] = {
        str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)
    }  # 'torch.float32', ...
    for name, dtype in STORAGES.items():
        table[f'torch.{name}Storage'] = StorageKind(dtype)
    for name in ('torch.UntypedStorage', 'torch.storage.UntypedStorage'):
        table[name] = StorageKind(None)
    functions = {
        'torch._utils._rebuild_tensor': rebuild_tensor,
        'torch._utils._rebuild_tensor_v2': rebuild_tensor,
        'torch._utils._rebuild_tensor_v3': rebuild_tensor_of_type,
        'torch._utils._rebuild_parameter': rebuild_parameter,
        'torch.Size': make_size,
        'torch.device': make_device,
        '_codecs.encode': encode_text,
    }
    for builtins in ('builtins', '__builtin__'):
        functions[f'{builtins}.getattr'] = history_method
        functions[f'{builtins}.set'] = make_container(set)
    functions['collections.OrderedDict'] = make_container(OrderedDict)
    functions['collections.Counter'] = make_container(Counter)
    for name in ('PosixPath', 'WindowsPath', 'PurePosixPath', 'PureWindowsPath'):
        functions[f'pathlib.{name}'] = functions[f'pathlib._local.{name}'] = make_path
    functions['numpy.dtype'] = make_dtype
    for module in ('numpy._core', 'numpy.core'):  # the names of numpy 2 and of numpy 1
        functions[f'{module}.multiarray._reconstruct'] = reconstruct_array
        functions[f'{module}.multiarray.scalar'] = make_scalar
    table.update((name, Symbol(name, call=function)) for name, function in functions.items())
    shells: Tuple[Tuple[str, Any], ...] = (
        ('mmengine.logging.history_buffer.HistoryBuffer', HistoryShell),
        ('argparse.Namespace', NamespaceShell),
    )
    table.update((name, Symbol(name, new=shell)) for name, shell in shells)
    table['numpy.ndarray'] = Symbol('numpy.ndarray')
    for name in STATISTICS_METHODS:  # as protocols 4 and 5 name them
        table[f'mmengine.logging.history_buffer.HistoryBuffer.{name}'] = name
    return table


SYMBOLS = _symbols()
