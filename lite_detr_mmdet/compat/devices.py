"""Say in one line that a device is not there: torch's own errors take thirty."""

from typing import Optional, Union

import torch


def check_device(device: Optional[Union[str, torch.device]]) -> None:
    """Check that torch can use a device.

    Args:
        device (str | torch.device, optional): The device; None is always right.

    Raises:
        ValueError: If there is no such device.
    """
    if device is None:
        return
    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be such as 'cpu' or 'cuda:0', got {device!r}") from error
    if asked.type == 'cuda':
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (asked.index or 0) >= count:
            reason = 'this torch is built without CUDA' if torch.version.cuda is None else f'torch sees {count} GPUs'
            raise ValueError(f"device {str(device)!r} is not there: {reason}; use 'cpu'")
    elif asked.type == 'mps' and not torch.backends.mps.is_available():
        raise ValueError(f"device {str(device)!r} is not there: this torch has no MPS; use 'cpu'")
