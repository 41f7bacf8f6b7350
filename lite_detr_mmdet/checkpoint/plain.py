"""Make checkpoints plain, so that ``torch.load(path, weights_only=True)`` reads them without this package."""

from collections import OrderedDict
from typing import Any, List, Tuple

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from .errors import Fault
from .symbols import make_history

HISTORY_KEYS = {'log_history', 'count_history', 'max_length'}
LEAVES = (type(None), bool, int, float, complex, str, bytes, bytearray, torch.dtype, Tensor)
DROPPED = object()


def plain_checkpoint(checkpoint: dict) -> Tuple[dict, List[str]]:
    """A checkpoint made of tensors and built-in Python values.

    Log histories become dicts of tensors (:func:`restore_histories` is the inverse), numpy numbers become Python's and
    numpy arrays become tensors. Anything without a plain form is left out, since a file with it could not be loaded.

    Returns:
        tuple:
            - checkpoint (dict): The plain checkpoint; it shares its tensors with the original.
            - left_out (list[str]): What was left out, and where.
    """
    left_out: List[str] = []
    return _plain(checkpoint, '', left_out), left_out


def _plain(value: Any, place: str, left_out: List[str]) -> Any:
    if isinstance(value, LEAVES):
        return _leaf(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biuf':
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, HistoryBuffer):
        values, counts = value.data
        tensors = (torch.from_numpy(np.array(item)) for item in (values, counts))
        return dict(zip(('log_history', 'count_history'), tensors), max_length=value.max_length)
    if isinstance(value, torch.Size):
        return value
    if isinstance(value, dict):
        plain = OrderedDict() if isinstance(value, OrderedDict) else {}
        for key, item in value.items():
            plain_key = _plain(key, f'{place}[{key!r}]', left_out)
            plain_item = _plain(item, f'{place}[{key!r}]', left_out)
            if plain_key is not DROPPED and plain_item is not DROPPED:
                plain[plain_key] = plain_item
        if hasattr(value, '_metadata'):
            plain._metadata = value._metadata  # versions of the modules
        return plain
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_plain(item, f'{place}[{index}]', left_out) for index, item in enumerate(value)]
        items = [item for item in items if item is not DROPPED]
        return items if isinstance(value, list) else tuple(items) if isinstance(value, tuple) else set(items)
    left_out.append(f'{place or "the checkpoint"} ({type(value).__name__})')
    return DROPPED


def _leaf(value: Any) -> Any:
    """A leaf as its built-in type, where it is of a subclass such as torch's version string."""
    for kind in (bool, int, float, str, bytes):
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)
    return value


def restore_histories(message_hub: dict) -> None:
    """Turn the dicts of :func:`plain_checkpoint` back into the log histories that mmengine resumes from.

    Raises:
        Fault: If one is not a list of numbers.
    """
    scalars = message_hub.get('log_scalars')
    if not isinstance(scalars, dict):
        return
    for name, value in scalars.items():
        if isinstance(value, dict) and value.keys() == HISTORY_KEYS:
            arrays = []
            for key in ('log_history', 'count_history'):
                if not isinstance(value[key], Tensor):
                    raise Fault('it holds a log history that is not a list of numbers')
                arrays.append(value[key].detach().numpy().copy())
            scalars[name] = make_history(*arrays, value['max_length'])
