"""Mixed precision on a CPU: bfloat16, on processors that compute in it."""

import contextlib
from typing import Any, Iterator

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine.optim import OptimWrapper
from torch import nn


def cpu_has_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16 (AVX-512 BF16 or AMX, or Arm's)."""
    mkldnn = getattr(torch.ops, 'mkldnn', None)
    check = getattr(mkldnn, '_is_mkldnn_bf16_supported', None)
    native = getattr(torch.backends.cpu, 'get_cpu_capability', lambda: '')()
    if check is None or not check():
        return False
    flags = getattr(torch.cpu, '_is_avx512_bf16_supported', None)
    return bool(flags is None or flags() or not native.startswith('AVX'))


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Forward and loss under torch's autocast to bfloat16 on a CPU; weights and their updates stay in float32.

    bfloat16 has the range of float32, so losses are not scaled. ``tools/train.py --amp`` uses it where there
    is no GPU.
    """

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[Any]:
        """Enable autocast."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield
