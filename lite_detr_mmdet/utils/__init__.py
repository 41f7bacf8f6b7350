"""Helpers of the command-line tools."""

from .launch import add_launch_arguments, build_runner, load_config

__all__ = ['add_launch_arguments', 'build_runner', 'load_config']
