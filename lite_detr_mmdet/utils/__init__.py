"""Helpers of the command-line tools and of what is built on the models."""

from ..checkpoint import file_sha256, load_checkpoint_file, save_checkpoint_file
from .launch import (
    add_launch_arguments,
    add_tensorboard,
    build_runner,
    existing_checkpoint,
    existing_config,
    load_config,
)
from .warnings_filter import silence_upstream_warnings

__all__ = [
    'add_launch_arguments',
    'add_tensorboard',
    'build_runner',
    'existing_checkpoint',
    'existing_config',
    'file_sha256',
    'load_checkpoint_file',
    'load_config',
    'save_checkpoint_file',
    'silence_upstream_warnings',
]
