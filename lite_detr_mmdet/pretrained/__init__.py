"""Where pretrained weights of backbones come from: names in ``init_cfg`` and ``load_from`` beside files."""

from .names import pretrained_file, pretrained_url
from .package_files import package_file
from .schemes import register_pretrained_schemes

__all__ = ['package_file', 'pretrained_file', 'pretrained_url', 'register_pretrained_schemes']
