"""Thin, optional bridges to other libraries; each is imported when it is first used.

``pip install 'lite-detr-mmdet[adapters]'`` installs what they need.
"""

import importlib
from typing import Any

_MODULES = {
    'to_supervision': 'results',
    'SahiModel': 'sliced',
    'from_pretrained': 'hub',
    'push_to_hub': 'hub',
    'save_pretrained': 'hub',
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f'.{_MODULES[name]}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
