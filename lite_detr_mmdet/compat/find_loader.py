"""``pkgutil.find_loader``, which mmengine and mmcv call and Python 3.14 no longer has."""

import importlib.util
import pkgutil
from typing import Any


def find_loader(fullname: str) -> Any:
    """The loader of a module, None if there is no such module, as Python's own function had it.

    Raises:
        ImportError: If the module's specification cannot be read.
    """
    if fullname.startswith('.'):
        raise ImportError(f'Relative module name {fullname!r} not supported')
    try:
        spec = importlib.util.find_spec(fullname)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ImportError(f'Error while finding loader for {fullname!r} ({type(error)}: {error})') from error
    return spec.loader if spec is not None else None


def restore_find_loader() -> None:
    """Give :mod:`pkgutil` the function back where Python has dropped it."""
    if not hasattr(pkgutil, 'find_loader'):
        pkgutil.find_loader = find_loader
