"""The choice of the backend of an operator: the one place that makes it."""

import os
import warnings
from functools import cache

from .extension import explain_missing, has_kernel

BACKENDS = ('auto', 'fused', 'reference')
BACKEND_VARIABLE = 'LITE_DETR_BACKEND'


def choose_backend(backend: str, device_type: str, operator: str = 'key_aware_deform_attn') -> str:
    """The backend to run, 'fused' or 'reference'.

    Args:
        backend (str): One of ``BACKENDS``. The environment variable LITE_DETR_BACKEND replaces 'auto'.
        device_type (str): Type of the device of the tensors.
        operator (str): Name of the operator. Defaults to 'key_aware_deform_attn'.

    Raises:
        ValueError: If the backend or the environment variable is none of ``BACKENDS``.
        RuntimeError: If 'fused' is asked for and there is no compiled operator for the device.
    """
    return _choose(backend, device_type, operator)


def _choose_by_environment(backend: str, device_type: str, operator: str) -> str:
    source = 'backend'
    if backend == 'auto':
        source, backend = BACKEND_VARIABLE, os.environ.get(BACKEND_VARIABLE) or 'auto'
    if backend not in BACKENDS:
        raise ValueError(f'{source} must be one of {", ".join(map(repr, BACKENDS))}, got {backend!r}')
    # Tensors without data have the shapes of the compiled operator wherever it is loaded.
    if backend == 'reference' or has_kernel('cpu' if device_type == 'meta' else device_type, operator):
        return 'reference' if backend == 'reference' else 'fused'
    if backend == 'fused':
        raise RuntimeError(
            f"backend='fused' is not available for {device_type}: {explain_missing(device_type, operator)}."
        )
    _warn_once(operator, device_type)
    return 'reference'


# A constant while torch compiles: neither the environment nor the library is part of the graph. This attribute is what
# torch.compiler.assume_constant_result sets, after a second or two for importing torch's compiler. torch 2.4 puts the
# constant into a global of the function's own name, in the module that it compiles; so nothing is called by that name.
_choose_by_environment._dynamo_marked_constant = True  # type: ignore[attr-defined]
_choose = _choose_by_environment


@cache
def _warn_once(operator: str, device_type: str) -> None:
    """Say once for each operator and type of device that it is slow, and how to change that."""
    warnings.warn(
        f'{operator} runs in plain PyTorch on {device_type}, which is many times slower: '
        f"{explain_missing(device_type, operator)}. backend='reference' or {BACKEND_VARIABLE}=reference asks for it "
        'without this warning.',
        stacklevel=5,
    )
