"""Check that the packages this one builds on are there, in versions that fit."""

import importlib
from importlib import metadata

from packaging.version import Version

INSTALL_MMCV = (
    "pip install 'setuptools>=77.0.3,<81' wheel ninja psutil numpy && pip cache remove mmcv; "
    'MMCV_WITH_OPS=1 pip install --no-build-isolation --force-reinstall --no-deps mmcv==2.1.0'
)
# module -> (lowest version, first version that is too new, command that installs a fitting one)
REQUIREMENTS = {
    'mmengine': ('0.10.0', '0.11.0', "pip install 'mmengine>=0.10.0,<0.11.0'"),
    'mmcv': ('2.0.0', '2.2.0', INSTALL_MMCV),
    'mmdet': ('3.3.0', '3.4.0', "pip install 'mmdet>=3.3.0,<3.4.0'"),
}


def check_version(module_name: str, version: str) -> None:
    """Check the version of one module.

    Args:
        module_name (str): 'mmengine', 'mmcv' or 'mmdet'.
        version (str): The version that is installed.

    Raises:
        ImportError: If the version does not fit; the message holds the command that installs one that does.
    """
    lowest, too_new, command = REQUIREMENTS[module_name]
    # A pre-release of the first version that is too new is too new as well.
    if not Version(lowest) <= Version(version) or Version(version).release >= Version(too_new).release:
        raise ImportError(
            f'lite_detr_mmdet needs {module_name} >= {lowest}, < {too_new}, but {version} is installed. '
            f'Install a version that fits with:\n  {command}'
        )


def check_versions() -> None:
    """Check that mmengine, mmcv with its compiled operators and mmdet can be imported, in versions that fit.

    Raises:
        ImportError: If one is missing or does not fit; the message holds the command that fixes it.
    """
    for module_name, (lowest, too_new, command) in REQUIREMENTS.items():
        try:
            metadata_version = metadata.version(module_name)
        except metadata.PackageNotFoundError:
            metadata_version = None  # mmcv-lite, forks and source trees have other names: ask the module itself
        if metadata_version is not None and module_name == 'mmdet':
            # mmdet refuses versions of mmcv and mmengine by assertion on import; its own version is known before.
            check_version(module_name, metadata_version)
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise ImportError(
                f'lite_detr_mmdet needs {module_name} >= {lowest}, < {too_new}, but importing it failed: {error}. '
                f'Install it with:\n  {command}\n'
                'To use the operators alone, without the OpenMMLab packages, set LITE_DETR_OPS_ONLY=1.'
            ) from error
        check_version(module_name, module.__version__)
        if module_name == 'mmcv':
            check_mmcv_ops()


def check_mmcv_ops() -> None:
    """Check that mmcv was built with its operators.

    Raises:
        ImportError: If ``mmcv._ext`` cannot be imported.
    """
    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        raise ImportError(
            f"mmcv's compiled operators (mmcv._ext) are missing or do not fit this torch: {error}. "
            f'Build mmcv with its operators for the installed torch with:\n  {INSTALL_MMCV}'
        ) from error
