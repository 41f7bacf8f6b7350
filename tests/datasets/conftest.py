from helpers.tools import (  # noqa: F401
    config,
    error_of_tool,
    port,
    run_tool,
    shapes,
    tiny_options,
    trained,
)
