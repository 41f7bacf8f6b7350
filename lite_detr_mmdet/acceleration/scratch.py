"""Memory that the layers of one encoder or decoder share, one after the other."""

import threading
from contextlib import contextmanager
from typing import Dict, Iterator, Tuple

import torch
from torch import Tensor

_local = threading.local()


@contextmanager
def shared_scratch() -> Iterator[None]:
    """Let :func:`scratch` give the same memory again and again, until the end of the block, to this thread."""
    outer = getattr(_local, 'buffers', None)
    _local.buffers = {}
    try:
        yield
    finally:
        _local.buffers = outer


def scratch(name: str, shape: Tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor on the CPU, whose content is used before the same name is asked for again.

    Fresh memory costs a page fault every four kilobytes: for the tensors of a layer, as much time as computing them.

    Args:
        name (str): What it is for.
        shape (tuple[int, ...]): Its shape.
        dtype (torch.dtype): Its dtype.
    """
    buffers: Dict[tuple, Tensor] = getattr(_local, 'buffers', None)
    if buffers is None:
        return torch.empty(shape, dtype=dtype)
    size = torch.Size(shape).numel()
    key = name, dtype, torch.is_inference_mode_enabled()
    if key not in buffers or buffers[key].numel() < size:
        buffers[key] = torch.empty(size, dtype=dtype)
    return buffers[key][:size].view(shape)
