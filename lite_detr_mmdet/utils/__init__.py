"""Helpers of the command-line tools."""

from .launch import add_launch_arguments, build_runner, existing_checkpoint, existing_config, load_config

__all__ = ['add_launch_arguments', 'build_runner', 'existing_checkpoint', 'existing_config', 'load_config']
