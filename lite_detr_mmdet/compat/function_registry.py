"""Give mmdet a registry of functions, so that mmengine stops warning that it has none."""

from mmengine.registry import FUNCTIONS, Registry


def add_function_registry() -> None:
    """Add an empty one below mmengine's, where the functions that collate batches are found as before."""
    if 'mmdet' not in FUNCTIONS.children:
        Registry('function', parent=FUNCTIONS, scope='mmdet', locations=[])
