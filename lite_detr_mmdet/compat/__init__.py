"""What today's torch needs to run the OpenMMLab stack; applied once when ``lite_detr_mmdet`` is imported.

Importing this package first checks the versions of mmengine, mmcv and mmdet, and puts a stand-in in the place of
mmcv's compiled operators where there are none.
"""

# ruff: noqa: E402
import warnings

from .find_loader import restore_find_loader
from .versions import check_versions

# Before everything that imports the packages that are checked: their own errors name no remedy.
restore_find_loader()
with warnings.catch_warnings():
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')  # mmengine imports it
    check_versions()

from .config_scope import register_config_scope
from .config_text import keep_braces_in_config_text
from .cpu_distributed import cpu_model_wrapper_cfg, enable_cpu_distributed, has_accelerator
from .devices import check_device
from .function_registry import add_function_registry
from .mmcv_ext import has_stand_in
from .runner_checkpoints import guard_runner_checkpoints

__all__ = [
    'apply_compat',
    'check_device',
    'check_versions',
    'cpu_model_wrapper_cfg',
    'has_accelerator',
    'has_stand_in',
]


def apply_compat() -> None:
    """Apply all fixes; see each module for what it fixes. Applying them twice changes nothing."""
    guard_runner_checkpoints()
    keep_braces_in_config_text()
    enable_cpu_distributed()
    register_config_scope()
    add_function_registry()
