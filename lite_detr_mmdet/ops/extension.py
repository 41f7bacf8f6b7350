"""The compiled operators: loaded once, when ``lite_detr_mmdet.ops`` is imported."""

import glob
import os
from typing import Optional

import torch

BUILD_COMMAND = 'pip install --no-build-isolation --force-reinstall --no-deps .'


def find_library() -> Optional[str]:
    """Path of the compiled library beside this file, or None."""
    paths = sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), '_C*.so')))
    return paths[0] if paths else None


def load_library() -> Optional[str]:
    """Load the compiled operators into torch.

    Returns:
        str or None: Why they are missing; None if they are loaded.
    """
    path = find_library()
    if path is None:
        return 'the operators are not compiled: no _C*.so beside lite_detr_mmdet/ops/extension.py'
    try:
        torch.ops.load_library(path)
    except OSError as error:  # names the library alone; its cause says what is wrong with it
        return (
            f'{path} cannot be loaded by torch {torch.__version__}, it may be built for another one: '
            f'{error.__cause__ or error}'
        )
    return None


LOAD_ERROR = load_library()


def is_available() -> bool:
    """Whether the compiled operators are loaded."""
    return LOAD_ERROR is None


def has_kernel(device_type: str) -> bool:
    """Whether the compiled operators run on a type of device, 'cpu' or 'cuda'."""
    return is_available() and torch._C._dispatch_has_kernel_for_dispatch_key(
        'lite_detr::key_aware_deform_attn', device_type.upper()
    )


def explain_missing(device_type: str = 'cpu') -> str:
    """One sentence on why there is no compiled operator for a type of device, with the command that builds it."""
    reason = LOAD_ERROR or f'the compiled operators have no kernel for {device_type}'
    return f'{reason}. Build them in the source tree with `{BUILD_COMMAND}`'
