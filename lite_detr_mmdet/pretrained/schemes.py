"""Teach mmengine's ``CheckpointLoader`` the names of pretrained weights."""

from mmengine.runner import CheckpointLoader

from .package_files import PREFIX, load_from_package


def register_pretrained_schemes() -> None:
    """Register the loaders of this package; twice changes nothing."""
    CheckpointLoader.register_scheme(PREFIX, load_from_package, force=True)
