"""``python -m lite_detr_mmdet.ops`` prints which compiled operators there are and why others are missing."""

import os
import platform
import warnings
from pathlib import Path

import torch

from .backend import BACKEND_VARIABLE, choose_backend
from .extension import BUILD_COMMAND, LOAD_ERROR, find_library, has_kernel, is_available

OPERATORS = ('key_aware_deform_attn', 'multi_scale_deform_attn')


def describe() -> str:
    """A report of one fact per line."""
    lines = [
        f'python: {platform.python_version()}',
        f'torch: {torch.__version__} (CUDA {torch.version.cuda}), {torch.get_num_threads()} threads',
        f'library: {find_library() or "none"}',
    ]
    if is_available():
        lines.append(f'cpu: yes, instruction set {torch.ops.lite_detr.cpu_capability()}')
        on_cuda = [operator for operator in OPERATORS if has_kernel('cuda', operator)]
        if on_cuda:
            devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
            lines.append(f'cuda: yes, {devices} devices, {" and ".join(on_cuda)}')
        elif torch.version.cuda is None:
            lines.append('cuda: no: torch is not a CUDA build')
        else:
            lines.append('cuda: no: built without nvcc or a GPU (FORCE_CUDA=1 makes that an error)')
    else:
        lines += [f'cpu: no: {LOAD_ERROR}', 'cuda: no, for the same reason']
    for runtime in ('onnxruntime', 'openvino'):
        found = sorted(Path(__file__).resolve().parent.glob(f'*lite_detr_{runtime}.*'))
        lines.append(f'{runtime}: {found[0] if found else "no: tools/deployment/build_extensions.py builds it"}')
    lines.append(f'{BACKEND_VARIABLE}: {os.environ.get(BACKEND_VARIABLE) or "not set"}')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the plain form: the lines above say it
        for operator in OPERATORS:
            lines.append(f'backend of {operator} on cpu: {choose_backend("auto", "cpu", operator)}')
    if not is_available():
        lines.append(f'build: {BUILD_COMMAND}')
    return '\n'.join(lines)


if __name__ == '__main__':
    print(describe())
