"""Stand in for imgaug, which OneDL's mmdet imports to augment lines, and which does not load on numpy 2."""

import importlib
import sys
from types import ModuleType
from typing import Any

NAMES = (
    'imgaug',
    'imgaug.augmenters',
    'imgaug.augmentables',
    'imgaug.augmentables.lines',
    'imgaug.augmentables.segmaps',
)


class ImgaugStandIn(ModuleType):
    """A module of imgaug whose functions raise when they are called."""

    __path__: list = []  # a package: its modules are in sys.modules

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')

        def missing(*args, **kwargs):
            raise NotImplementedError(
                f'{self.__name__}.{name} is not here: imgaug is missing or does not load. Detection does not need it; '
                "OneDL's ImageAug for lines does: pip install imgaug 'numpy<2'"
            )

        return missing


def stand_in_for_imgaug() -> bool:
    """Put stand-ins in the place of imgaug's modules, unless imgaug can be imported.

    Returns:
        bool: Whether imgaug is a stand-in.
    """
    try:
        module = importlib.import_module('imgaug.augmenters')
    except (ImportError, AttributeError):  # imgaug 0.4 uses names that numpy 2 has dropped
        for name in [name for name in sys.modules if name.partition('.')[0] == 'imgaug']:
            del sys.modules[name]
        for name in NAMES:
            sys.modules[name] = ImgaugStandIn(name)
        for name in NAMES[1:]:
            parent, _, child = name.rpartition('.')
            setattr(sys.modules[parent], child, sys.modules[name])
        return True
    return isinstance(module, ImgaugStandIn)
