"""Fixtures of these tests."""

from helpers.web_server import cache, server  # noqa: F401
