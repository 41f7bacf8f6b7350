"""Stand in for mmcv's compiled operators, ``mmcv._ext``, where mmcv comes without them, as in mmcv-lite.

mmcv and mmdet import the module whether or not they need anything of it. The stand-in lets them, works for what
MMDetection's DETRs call (:mod:`.mmcv_functions`), and raises for the rest when it is called.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Callable, Tuple

from . import mmcv_functions

NAME = 'mmcv._ext'
INSTALL_MMCV_WITH_OPERATORS = (
    "pip uninstall -y mmcv mmcv-lite; pip install 'setuptools>=77.0.3,<81' wheel ninja psutil numpy && "
    'pip cache remove mmcv; MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps mmcv==2.1.0'
)


class StandInLoader:
    """What the import system asks for: the module is made by :func:`stand_in_for_mmcv_ext`."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return MmcvExtension(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module is complete."""


class MmcvExtension(ModuleType):
    """``mmcv._ext`` without compiled operators."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(NAME, __doc__)
        self.__spec__ = spec
        self.__loader__ = spec.loader
        self.__package__ = spec.parent
        for name in mmcv_functions.__all__:
            setattr(self, name, getattr(mmcv_functions, name))

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('__'):
            raise AttributeError(f'module {NAME!r} has no attribute {name!r}')
        return missing_function(name)


def missing_function(name: str) -> Callable:
    """A function that raises NotImplementedError: it names itself, who needs it and the command that brings it."""

    def missing(*args, **kwargs):
        operator, caller = find_callers()
        caller = f', called by {caller},' if caller else ''
        raise NotImplementedError(
            f"{operator}{caller} needs mmcv's function {name!r}, which is not compiled: mmcv-lite has no compiled "
            'operators, and lite_detr_mmdet brings only those that DETRs call. Build mmcv with operators (minutes, '
            f'needs a C++ compiler) with:\n  {INSTALL_MMCV_WITH_OPERATORS}'
        )

    missing.__name__ = missing.__qualname__ = name
    return missing


def find_callers() -> Tuple[str, str]:
    """The module of mmcv that called a function of ``mmcv._ext``, and what called that.

    Returns:
        tuple[str, str]: Module of mmcv, e.g. 'mmcv.ops.deform_conv'; module and line outside of mmcv and torch, empty
        where there is none, as in a backward pass.
    """
    frame = sys._getframe(1)
    operator = NAME
    while frame is not None:
        name = frame.f_globals.get('__name__', '')
        package = name.partition('.')[0]
        if package == 'mmcv':
            operator = name
        elif package != 'torch' and name not in (__name__, mmcv_functions.__name__):
            return operator, f'{name} (line {frame.f_lineno})'
        frame = frame.f_back
    return operator, ''


def stand_in_for_mmcv_ext() -> bool:
    """Put the stand-in in the place of ``mmcv._ext``, where mmcv has none.

    mmcv itself must be importable. A compiled ``mmcv._ext``, and one that cannot be loaded, are left alone.

    Returns:
        bool: Whether ``mmcv._ext`` is the stand-in.
    """
    if has_stand_in():
        return True
    if importlib.util.find_spec(NAME) is not None:
        return False
    sys.modules.pop(NAME, None)
    module = importlib.util.module_from_spec(ModuleSpec(NAME, StandInLoader(), origin=__file__))
    sys.modules[NAME] = module
    sys.modules['mmcv']._ext = module
    return True


def has_stand_in() -> bool:
    """Whether ``mmcv._ext`` is the stand-in."""
    return isinstance(sys.modules.get(NAME), MmcvExtension)
