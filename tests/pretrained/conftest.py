"""Fixtures of these tests."""

from helpers.detectors import batch, tiny_config  # noqa: F401
from helpers.web_server import cache, server  # noqa: F401
