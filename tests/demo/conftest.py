"""Fixtures of these tests."""

from helpers.small_model import checkpoint, small_config  # noqa: F401
