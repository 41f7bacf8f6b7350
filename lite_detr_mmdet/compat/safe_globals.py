"""Load mmengine's checkpoints with torch's restricted unpickler.

From version 2.6 on ``torch.load`` admits tensors and plain containers only, while checkpoints of mmengine's Runner
also hold log histories: ``HistoryBuffer`` objects with numpy arrays. These are named here one by one, so that loading
stays restricted. Nothing here can call code of the file's choosing: ``getattr``, by which pickle finds the statistics
methods of ``HistoryBuffer``, is replaced by a function that knows those methods only.
"""

import pickle
from typing import Any, Callable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

STATISTICS_METHODS = ('min', 'max', 'mean', 'current')
# The kinds of numbers that logs hold; an array of arbitrary objects is not among them.
DTYPES = ('bool', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint32', 'uint64', 'float16', 'float32', 'float64')


def history_buffer_method(owner: Any, name: str) -> Callable:
    """Stand in for ``getattr`` while a checkpoint is loaded.

    Raises:
        pickle.UnpicklingError: If anything but a statistics method of ``HistoryBuffer`` is asked for.
    """
    if owner is not HistoryBuffer or name not in STATISTICS_METHODS:
        raise pickle.UnpicklingError(f'refused to load: the file asks for attribute {name!r} of {owner!r}')
    return getattr(HistoryBuffer, name)


def add_checkpoint_safe_globals() -> None:
    """Add what the Runner's checkpoints hold to the list of torch's restricted unpickler."""
    reconstruct_array = np.empty(0).__reduce__()[0]
    reconstruct_scalar = np.float64(0).__reduce__()[0]
    numpy_globals = [
        (function, f'{module}.multiarray.{name}')
        for module in ('numpy._core', 'numpy.core')  # the names of numpy 2 and of numpy 1
        for function, name in ((reconstruct_array, '_reconstruct'), (reconstruct_scalar, 'scalar'))
    ]
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            *{type(np.dtype(name)) for name in DTYPES},
            *numpy_globals,
            (history_buffer_method, 'builtins.getattr'),
        ]
    )
