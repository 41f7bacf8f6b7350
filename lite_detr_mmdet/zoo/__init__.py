"""The shipped models: where their files are, their names, and what their metafiles say."""

from .files import config_folder, shipped_folder
from .metafiles import ShippedModel, read_metafiles, shipped_models
from .names import ConfigNotFoundError, find_config, find_model, find_package_config, get_config, list_models

__all__ = [
    'ConfigNotFoundError',
    'ShippedModel',
    'config_folder',
    'find_config',
    'find_model',
    'find_package_config',
    'get_config',
    'list_models',
    'read_metafiles',
    'shipped_folder',
    'shipped_models',
]
