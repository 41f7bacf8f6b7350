"""Where pretrained weights of backbones come from: names in ``init_cfg`` and ``load_from`` beside files and URLs."""

from .package_files import load_from_package, package_file
from .schemes import register_pretrained_schemes

__all__ = ['load_from_package', 'package_file', 'register_pretrained_schemes']
