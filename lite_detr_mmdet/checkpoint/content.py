"""Checks of what a checkpoint holds, and that it is where programs look for it."""

from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any, Collection, Dict, Tuple, Union

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from .errors import CheckpointError, Fault, Refusal
from .unpickler import Shell, Symbol

MAX_DEPTH = 64
MAX_ITEMS = 20_000_000  # counting shared parts every time they appear
# Tensors may share bytes, as tied weights do: bytes that they would have on their own, for each byte in the file.
MAX_SHARING, SPARE = 32, 256 << 20
WEIGHT_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LEAVES = (type(None), bool, int, float, complex, str, bytes, bytearray, torch.dtype, Tensor, np.ndarray, HistoryBuffer)
CONTAINERS = (dict, OrderedDict, Counter, list, tuple, set, torch.Size)


def check_content(content: Any) -> None:
    """Check that the contents are tensors and plain values, form a tree, and are not nested too deeply.

    Raises:
        Fault: If it is not.
    """
    known: Dict[int, Tuple[int, int]] = {}  # values and levels below each container
    open_ids = set()
    tensors: Dict[int, Tensor] = {}

    def count(value: Any, depth: int) -> Tuple[int, int]:
        if isinstance(value, (Symbol, Shell)):
            raise Refusal(f'it holds the bare name {getattr(value, "name", type(value).__name__)}')
        if isinstance(value, Tensor):
            tensors[id(value)] = value
        if isinstance(value, LEAVES):
            return 1, 0
        if type(value) not in CONTAINERS:
            raise Fault(f'it holds a {type(value).__name__} where a value should be')
        identity = id(value)
        if identity in open_ids:
            raise Fault(f'it holds a {type(value).__name__} that contains itself')
        if identity not in known:
            if depth > MAX_DEPTH:
                raise Fault(f'its values are nested more than {MAX_DEPTH} deep')
            open_ids.add(identity)
            items = value.values() if isinstance(value, dict) else value  # keys were checked when the table was made
            below = [count(item, depth + 1) for item in items]
            open_ids.discard(identity)
            known[identity] = 1 + sum(size for size, _ in below), 1 + max((height for _, height in below), default=0)
        size, height = known[identity]
        if size > MAX_ITEMS:
            raise Fault(f'it holds more than {MAX_ITEMS} values')
        if depth + height > MAX_DEPTH + 1:
            raise Fault(f'its values are nested more than {MAX_DEPTH} deep')
        return size, height

    count(content, 0)
    _check_tensors(tensors.values())


def _check_tensors(tensors: Collection[Tensor]) -> None:
    """Check truth values, and that tensors together are not far larger than their bytes."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    if sum(tensor.nbytes for tensor in tensors) > MAX_SHARING * sum(storages.values()) + SPARE:
        raise Fault('its tensors claim to be far larger than its data')
    for tensor in tensors:
        # Compiled code takes for granted that a truth value is 0 or 1.
        if tensor.dtype == torch.bool and tensor.numel() and tensor.detach().view(torch.uint8).max() > 1:
            raise Fault('it holds truth values other than 0 and 1')


def check_checkpoint(path: Union[str, Path], content: Any) -> dict:
    """Check that the contents have the parts of a checkpoint where they belong.

    Returns:
        dict: The contents.

    Raises:
        CheckpointError: If they do not.
    """
    if not isinstance(content, dict):
        raise CheckpointError(path, f'must hold a dict, got {type(content).__name__}')
    wrong = [key for key in content if not isinstance(key, str) or not key.isprintable()]
    if wrong:
        raise CheckpointError(path, f'must hold names, got the key {wrong[0]!r}'[:200])
    for name in ('meta', 'message_hub'):
        if not isinstance(content.get(name, {}), dict):
            raise CheckpointError(path, f'must hold a table as {name!r}, got {type(content[name]).__name__}')
    meta = content.get('meta', {})
    for name in ('cfg', 'config'):
        if not isinstance(meta.get(name, ''), str):
            raise CheckpointError(path, f'must hold a text as meta[{name!r}], got {type(meta[name]).__name__}')
    dataset_meta = meta.get('dataset_meta')
    if dataset_meta is not None and not (
        isinstance(dataset_meta, dict) and all(isinstance(key, str) for key in dataset_meta)
    ):
        raise CheckpointError(path, 'must hold a table of names as meta["dataset_meta"]')
    check_class_names(path, meta)
    for name in ('state_dict', 'model', 'ema_model'):
        if name in content:
            check_weights(path, content[name], name)
    return content


def check_class_names(path: Union[str, Path], meta: dict) -> None:
    """Check that the class names are a list of names.

    Raises:
        CheckpointError: If they are not.
    """
    tables = (meta, meta.get('dataset_meta') or {})
    for classes in [value for table in tables for key, value in table.items() if str(key).lower() == 'classes']:
        if classes is not None and not (
            isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)
        ):
            raise CheckpointError(path, 'must hold its classes as a list of names')


def check_weights(path: Union[str, Path], weights: Any, name: str, finite: bool = False) -> Dict[str, Tensor]:
    """Check that weights are tensors by name.

    Args:
        path (str | Path): The file.
        weights (object): Its weights.
        name (str): Where they are in the file.
        finite (bool): Whether to refuse weights that are not finite, or of a type that layers do not have. Defaults to
            False.

    Returns:
        dict[str, Tensor]: The weights.

    Raises:
        CheckpointError: If they are not.
    """
    if not isinstance(weights, dict):
        raise CheckpointError(path, f'must hold weights by name as {name!r}, got {type(weights).__name__}')
    for key, value in weights.items():
        if not isinstance(key, str):
            raise CheckpointError(path, f'must hold weights by name as {name!r}, got the key {key!r}')
        if not key.isprintable():  # loaders of any package write it into logs and to terminals
            raise CheckpointError(path, f'holds weights whose name is not plain text: {key[:100]!r}')
        if not isinstance(value, Tensor) and not key.endswith('_extra_state'):
            raise CheckpointError(path, f'must hold tensors as {name!r}, got {type(value).__name__} as {key}')
    if finite:
        for key, value in weights.items():
            if not isinstance(value, Tensor):
                continue
            if (value.is_floating_point() and value.dtype not in WEIGHT_TYPES) or value.is_complex():
                raise CheckpointError(path, f'holds weights of {value.dtype}, which no layer takes: {key}')
            if value.is_floating_point() and not value.isfinite().all():
                raise CheckpointError(path, f'holds weights that are not finite: {key}')
    return weights
