"""Distributed training and testing on CPUs: mmengine selects a CUDA device without asking whether there is one."""

from typing import Optional

import torch
import torch.distributed as torch_dist
from mmengine.dist import utils as mmengine_dist_utils


def enable_cpu_distributed() -> None:
    """Let mmengine's pytorch launcher use gloo where there is no accelerator.

    Where there is one, mmengine's own function runs untouched.
    """
    original = mmengine_dist_utils._init_dist_pytorch
    if getattr(original, 'falls_back_to_gloo', False):
        return

    def init_dist_pytorch(backend: str, init_backend: str = 'torch', **kwargs) -> None:
        if has_accelerator():
            original(backend, init_backend=init_backend, **kwargs)
        else:
            torch_dist.init_process_group(backend='gloo', **kwargs)

    init_dist_pytorch.falls_back_to_gloo = True
    mmengine_dist_utils._init_dist_pytorch = init_dist_pytorch


def has_accelerator() -> bool:
    """Whether models are trained on a device other than the CPU."""
    accelerator = torch.accelerator.current_accelerator() if hasattr(torch, 'accelerator') else None
    return torch.cuda.is_available() or (accelerator is not None and accelerator.type != 'cpu')


def cpu_model_wrapper_cfg(find_unused_parameters: bool = False) -> Optional[dict]:
    """Config of a model wrapper that works on CPUs, None where an accelerator needs no help.

    mmengine's default passes a device index, which torch refuses for a model on the CPU.

    Args:
        find_unused_parameters (bool): See torch's DistributedDataParallel. Defaults to False.

    Returns:
        dict | None: A value for ``cfg.model_wrapper_cfg``.
    """
    if has_accelerator():
        return None
    return dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=find_unused_parameters,
    )
