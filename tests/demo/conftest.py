"""Fixtures of these tests."""

from helpers.small_model import checkpoint, small_config  # noqa: F401
from helpers.tools import error_of_tool, port, run_tool  # noqa: F401
