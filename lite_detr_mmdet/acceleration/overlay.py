"""Replace a module's forward with a faster one, for inference only.

An overlay is a mixin that is put in front of the class of a module: parameters, state dict and ``isinstance`` stay as
they are. Where the fast way does not apply (training, gradients, another device or dtype, tracing), it calls the
module's own forward.
"""

import threading
from collections import OrderedDict
from typing import Any, Callable, Dict, Hashable, Iterable, Optional, Tuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

_classes: Dict[Tuple[type, type], type] = {}


def _rebuild(overlay: type, host: type) -> nn.Module:
    return object.__new__(_overlaid_class(overlay, host))


class Overlay:
    """Base of all overlays: copies and pickles of an overlaid module are overlaid too."""

    overlay: type
    host: type
    compute_dtype: torch.dtype = torch.float32

    def __reduce_ex__(self, protocol: int) -> tuple:
        return _rebuild, (type(self).overlay, type(self).host), self.__dict__


def _overlaid_class(overlay: type, host: type) -> type:
    if (overlay, host) not in _classes:
        # Keep the original class name: printed models, logs and registries show what the module is.
        members = dict(overlay=overlay, host=host, __module__=host.__module__, __doc__=host.__doc__)
        _classes[overlay, host] = type(host.__name__, (overlay, host), members)
    return _classes[overlay, host]


def host_class(module: nn.Module) -> type:
    """The class of a module without its overlay."""
    return getattr(type(module), 'host', type(module))


def put_over(module: nn.Module, overlay: type) -> None:
    """Put an overlay over a module, in place."""
    module.__class__ = _overlaid_class(overlay, type(module))


def take_off(module: nn.Module) -> bool:
    """Restore a module's class; False if it had no overlay."""
    for name in [name for name, value in module.__dict__.items() if isinstance(value, Derived)]:
        del module.__dict__[name]
    if not isinstance(module, Overlay):
        return False
    module.__class__ = type(module).host
    module.__dict__.pop('compute_dtype', None)
    return True


def applies(module: nn.Module, tensor: Tensor) -> bool:
    """Whether the fast way may be taken: inference on a CPU of an input with values in float32 (or in the dtype that
    the module computes in), while nothing is traced."""
    return (
        not module.training
        and not torch.is_grad_enabled()
        and tensor.device.type == 'cpu'
        and tensor.dtype in (torch.float32, module.compute_dtype)
        and tensor.numel() > 0
        and not isinstance(tensor, FakeTensor)
        and not torch.is_autocast_enabled('cpu')
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def version_of(tensor: Optional[Tensor]) -> Hashable:
    """A key that changes when the values of a tensor do."""
    if tensor is None:
        return None
    return id(tensor), tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


class Derived:
    """Something derived from weights: built on first use, and again when a weight has changed."""

    def __init__(self) -> None:
        self._entry: Tuple[Any, Any] = (None, None)

    def get(self, sources: Iterable[Optional[Tensor]], make: Callable[[], Any]) -> Any:
        """What ``make`` returns for the present values of ``sources``."""
        versions = tuple(map(version_of, sources))
        entry = self._entry
        if entry[0] != versions:
            with torch.inference_mode(False), torch.no_grad():  # not bound to the mode of the first call
                entry = versions, make()
            self._entry = entry
        return entry[1]

    def __reduce__(self) -> tuple:
        return Derived, ()  # a copy makes its own


class ShapeCache(Derived):
    """A cache of what depends only on input shapes, for the last shapes used, up to a number of bytes."""

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, Tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any], size_of: Callable[[Any], int]) -> Any:
        """What ``make`` returned for this key, or returns now."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
        with torch.inference_mode(False), torch.no_grad():
            value = make()
        with self._lock:
            self._entries[key] = value, size_of(value)
            while len(self._entries) > 1 and sum(size for _, size in self._entries.values()) > self.max_bytes:
                self._entries.popitem(last=False)
        return value

    def __len__(self) -> int:
        return len(self._entries)

    def __reduce__(self) -> tuple:
        return ShapeCache, (self.max_bytes,)


def tensor_bytes(tensors: Iterable[Any]) -> int:
    """Bytes of those of some values that are tensors."""
    return sum(value.untyped_storage().nbytes() for value in tensors if isinstance(value, Tensor))
