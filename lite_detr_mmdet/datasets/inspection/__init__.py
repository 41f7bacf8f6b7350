"""Look at a data set before training on it: what is wrong, where, and what to do about it."""

from .config import InspectedConfig, Split, iter_datasets, read_splits
from .findings import Finding, Report
from .inspect import inspect_config

__all__ = ['Finding', 'InspectedConfig', 'Report', 'Split', 'inspect_config', 'iter_datasets', 'read_splits']
