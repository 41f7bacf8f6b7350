"""Teach mmengine's ``CheckpointLoader`` the names of pretrained weights."""

from typing import Any

from mmengine.runner import CheckpointLoader

from ..compat.runner_checkpoints import read_for_runner
from .names import TABLES, pretrained_file
from .package_files import PREFIX, package_file


def load_from_pretrained(filename: str, map_location: Any = None) -> dict:
    """Loader of mmengine for names and URLs of published weights: see :func:`.names.pretrained_file`."""
    return read_for_runner(str(pretrained_file(filename)), map_location)


def load_from_package(filename: str, map_location: Any = None) -> dict:
    """Loader of mmengine for names that start with ``package://``."""
    return read_for_runner(str(package_file(filename)), map_location)


def register_pretrained_schemes() -> None:
    """Register the loaders of this package; twice changes nothing."""
    CheckpointLoader.register_scheme(PREFIX, load_from_package, force=True)
    CheckpointLoader.register_scheme((*TABLES, 'http://', 'https://'), load_from_pretrained, force=True)
