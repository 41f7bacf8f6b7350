from helpers.tools import run_tool  # noqa: F401
