"""The compiled operators: loaded once, when ``lite_detr_mmdet.ops`` is imported."""

import os
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Optional

import torch

# Inputs of the operators, by which a library of other sources is told apart.
INPUTS = {
    'key_aware_deform_attn': (
        'query',
        'value',
        'spatial_shapes',
        'level_start_index',
        'reference_points',
        'sampling_offsets',
        'key',
    ),
    'multi_scale_deform_attn': (
        'value',
        'spatial_shapes',
        'level_start_index',
        'reference_points',
        'sampling_offsets',
        'attention_weights',
    ),
}
BUILD_COMMAND = 'pip install --no-build-isolation --force-reinstall --no-deps .'


def find_library(folder: str = os.path.dirname(os.path.abspath(__file__))) -> Optional[str]:
    """Path of the compiled library in a folder, or None.

    Only names that this interpreter would import count, its own first: beside them may lie what was built for another
    one. A library of a wheel for any Python has the plain suffix.
    """
    paths = [os.path.join(folder, f'_C{suffix}') for suffix in EXTENSION_SUFFIXES]
    return next((path for path in paths if os.path.isfile(path)), None)


def load_library() -> Optional[str]:
    """Load the compiled operators into torch.

    Returns:
        str or None: Why they are missing; None if they are loaded.
    """
    path = find_library()
    if path is None:
        return f'the operators are not compiled: no _C{EXTENSION_SUFFIXES[0]} beside lite_detr_mmdet/ops/extension.py'
    try:
        torch.ops.load_library(path)
    except OSError as error:  # names the library alone; its cause says what is wrong with it
        return (
            f'{path} cannot be loaded by torch {torch.__version__}, it may be built for another one: '
            f'{error.__cause__ or error}'
        )
    for operator, inputs in INPUTS.items():
        if read_inputs(operator) != inputs:
            return f'{path} was built from other sources than these: its {operator} has other inputs'
    return None


def read_inputs(operator: str) -> Optional[tuple]:
    """Names of the inputs of a loaded operator, None if the library has none of that name."""
    try:
        schema = torch._C._get_schema(f'lite_detr::{operator}', '')
    except RuntimeError:
        return None
    return tuple(argument.name for argument in schema.arguments)


LOAD_ERROR = load_library()


def is_available() -> bool:
    """Whether the compiled operators are loaded."""
    return LOAD_ERROR is None


def has_kernel(device_type: str, operator: str = 'key_aware_deform_attn') -> bool:
    """Whether a compiled operator runs on a type of device, 'cpu' or 'cuda'."""
    return is_available() and _is_registered(device_type, operator)


@cache  # the dispatcher takes as long as a small kernel
def _is_registered(device_type: str, operator: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f'lite_detr::{operator}', device_type.upper())


def explain_missing(device_type: str = 'cpu', operator: str = 'key_aware_deform_attn') -> str:
    """One sentence on why there is no compiled operator for a type of device, with the command that builds it."""
    reason = LOAD_ERROR or f'the compiled operators have no {operator} for {device_type}'
    return f'{reason}. Build them in the source tree with `{BUILD_COMMAND}`'
