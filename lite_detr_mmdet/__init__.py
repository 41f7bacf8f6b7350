"""Lite DETR for MMDetection.

Importing the package checks the versions of mmengine, mmcv and mmdet, fixes what today's torch breaks in them
(:mod:`lite_detr_mmdet.compat`) and registers models, hooks and transforms in ``mmdet.registry``. With the environment
variable ``LITE_DETR_OPS_ONLY=1`` it does none of this: :mod:`lite_detr_mmdet.ops` then works with torch alone.

Import it before torch and mmdet: idle threads then spin less (:mod:`lite_detr_mmdet.threads`), and mmdet finds an mmcv
without compiled operators completed.
"""

import importlib
import os
from typing import Any

from .threads import limit_spinning
from .version import __version__

limit_spinning()  # before torch is loaded

if os.environ.get('LITE_DETR_OPS_ONLY', '0') != '1':
    from .compat import apply_compat  # first: it checks the versions of what the others import

    apply_compat()

    from . import datasets, engine, evaluation, models  # noqa: F401
    from .pretrained import register_pretrained_schemes

    register_pretrained_schemes()

__all__ = ['Detector', '__version__', 'accelerate', 'get_config', 'get_model', 'list_models']


def __getattr__(name: str) -> Any:
    """Import what is in :mod:`lite_detr_mmdet.apis` when it is first used."""
    if name in __all__:
        return getattr(importlib.import_module('.apis', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
