from helpers.detectors import batch, tiny_config  # noqa: F401
