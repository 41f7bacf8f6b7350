"""Fixtures of these tests."""

from helpers.small_model import checkpoint, small_config  # noqa: F401
from helpers.web_server import cache, server  # noqa: F401
