"""Check that the packages this one builds on are there, in versions that fit."""

import importlib
import warnings
from importlib import metadata
from typing import Dict, List, NamedTuple, Tuple

from packaging.version import Version

from .imgaug_stand_in import stand_in_for_imgaug
from .mmcv_ext import INSTALL_MMCV_WITH_OPERATORS, stand_in_for_mmcv_ext

INSTALL_MMCV = "pip uninstall -y mmcv mmcv-lite; pip install 'mmcv-lite>=2.0.0,<2.2.0'"


class Requirement(NamedTuple):
    """What is needed of a module.

    Attributes:
        ranges (dict): Distributions that have the module, the first one being the usual: lowest version, first version
            that is too new.
        command (str): Installs a version that fits.
    """

    ranges: Dict[str, Tuple[str, str]]
    command: str

    @property
    def text(self) -> str:
        """The ranges in words."""
        return ' or '.join(f'{name} >= {lowest}, < {too_new}' for name, (lowest, too_new) in self.ranges.items())


# OneDL's packages are maintained continuations of OpenMMLab's, with the same module names.
REQUIREMENTS = {
    'mmengine': Requirement(
        {'mmengine': ('0.10.0', '0.11.0'), 'onedl-mmengine': ('0.10.8', '0.11.0')},
        "pip install 'mmengine>=0.10.0,<0.11.0'",
    ),
    'mmcv': Requirement(
        {'mmcv': ('2.0.0', '2.2.0'), 'mmcv-lite': ('2.0.0', '2.2.0'), 'onedl-mmcv': ('2.3.0', '2.4.0')}, INSTALL_MMCV
    ),
    'mmdet': Requirement(
        {'mmdet': ('3.3.0', '3.4.0'), 'onedl-mmdetection': ('3.4.0', '3.6.0')}, "pip install 'mmdet>=3.3.0,<3.4.0'"
    ),
}


def installed_distributions(module_name: str) -> Dict[str, str]:
    """Versions of the installed distributions that have a module; empty for source trees and unknown forks."""
    found = {}
    for name in REQUIREMENTS[module_name].ranges:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def fits(version: str, lowest: str, too_new: str) -> bool:
    """Whether a version lies in a range; a pre-release of the first version that is too new is too new as well."""
    return Version(lowest) <= Version(version) and Version(version).release < Version(too_new).release


def check_version(module_name: str, version: str, distributions: List[str] = ()) -> None:
    """Check the version of one module.

    Args:
        module_name (str): 'mmengine', 'mmcv' or 'mmdet'.
        version (str): The version that is installed.
        distributions (list[str], optional): Distributions that have the module here. Defaults to all that are known.

    Raises:
        ImportError: If the version does not fit; the message holds the command that installs one that does.
    """
    requirement = REQUIREMENTS[module_name]
    ranges = [requirement.ranges[name] for name in distributions or requirement.ranges]
    if not any(fits(version, *limits) for limits in ranges):
        raise ImportError(
            f'lite_detr_mmdet needs {requirement.text}, but {" and ".join(distributions) or module_name} {version} is '
            f'installed. Install a version that fits with:\n  {requirement.command}'
        )


def check_versions() -> None:
    """Check that mmengine, mmcv and mmdet can be imported, in versions that fit, and complete mmcv.

    Where mmcv comes without compiled operators, as mmcv-lite does, a stand-in takes their place.

    Raises:
        ImportError: If one is missing or does not fit; the message holds the command that fixes it.
    """
    for module_name, requirement in REQUIREMENTS.items():
        distributions = installed_distributions(module_name)
        warn_of_shared_module(module_name, distributions)
        if module_name == 'mmdet' and len(distributions) == 1:
            # mmdet refuses versions of mmcv and mmengine by assertion on import; its own version is known before.
            ((name, version),) = distributions.items()
            check_version(module_name, version, [name])
            if name == 'onedl-mmdetection':
                stand_in_for_imgaug()
        try:
            module = importlib.import_module(module_name)
        except (ImportError, AssertionError) as error:
            raise ImportError(
                f'lite_detr_mmdet needs {requirement.text}, but importing {module_name} failed: {error}. '
                f'Install it with:\n  {requirement.command}\n'
                'To use the operators alone, without the OpenMMLab packages, set LITE_DETR_OPS_ONLY=1.'
            ) from error
        check_version(module_name, module.__version__, list(distributions))
        if module_name == 'mmcv':
            check_mmcv_ops()


def warn_of_shared_module(module_name: str, distributions: Dict[str, str]) -> None:
    """Warn if several installed distributions have written the same module.

    pip does not know that they share files: the last one has overwritten the others, and removing one breaks all.
    """
    if len(distributions) > 1:
        names = list(distributions)
        warnings.warn(
            f'{" and ".join(f"{name} {version}" for name, version in distributions.items())} are installed and share '
            f'the module {module_name!r}: one has overwritten files of the other, and removing one breaks both. Keep '
            f'one of them: pip uninstall -y {" ".join(names)}, then install {" or ".join(names)}.',
            stacklevel=2,
        )


def check_mmcv_ops() -> None:
    """Put the stand-in in the place of mmcv's compiled operators where there are none.

    Raises:
        ImportError: If there are some and they cannot be loaded.
    """
    if stand_in_for_mmcv_ext():
        return
    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        raise ImportError(
            f"mmcv's compiled operators (mmcv._ext) do not fit this torch: {error}. Either do without them:\n"
            f'  {INSTALL_MMCV}\nor build them for the installed torch:\n  {INSTALL_MMCV_WITH_OPERATORS}'
        ) from error
