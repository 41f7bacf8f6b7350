"""Libraries that are not needed to detect or train."""

import importlib
from types import ModuleType

EXTRA = "pip install 'lite-detr-mmdet[adapters]'"


def require(module: str, package: str = '') -> ModuleType:
    """Import a module.

    Args:
        module (str): Name of the module.
        package (str): Name of its package on PyPI. Defaults to '', the name of the module.

    Raises:
        ImportError: If it is not installed; the message is the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition('.')[0]:
            raise  # the library is there and lacks something itself
        raise ImportError(
            f'{module} is not installed: pip install {package or module}, or {EXTRA} for all adapters', name=module
        ) from error
