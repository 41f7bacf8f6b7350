"""Silence warnings that the libraries below raise on today's torch and that a user can do nothing about."""

import warnings

# Beginnings of messages, each of a call inside mmengine, mmcv or mmdet.
UPSTREAM_WARNINGS = (
    r'torch\.meshgrid: in an upcoming release',
    r'position encoding of key ismissing',
    r'torch\.utils\.checkpoint: the use_reentrant',
    r'pkg_resources is deprecated',
    r'The arguments .dropout. in MultiheadAttention',
    r"The 'warn' method is deprecated",
    r'Failed to search registry with scope',
    r'`torch\.cuda\.amp',
    r'Dataset MM[A-Z]|Dataset .* has already been registered',
    r'dataset_meta or class names are not saved',
    r'palette does not exist, random is used',
    r'__floordiv__ is deprecated',
    r'The current default scope',
    r"'pin_memory' argument is set as true but no accelerator",
    r'.*lr_scheduler\.step\(\)` before `optimizer\.step',
)


def silence_upstream_warnings() -> None:
    """Filter them in this process; the tools call it, importing the package does not."""
    for message in UPSTREAM_WARNINGS:
        warnings.filterwarnings('ignore', message=message)
