"""Checkpoint files: the boundary between this package and files written by strangers.

Everything that reads or writes a checkpoint goes through here. See ``docs/security.md`` for what each loader trusts.
"""

from .config_text import ConfigTextError, config_from_json, config_to_json, parse_config_text
from .content import check_checkpoint, check_weights
from .download import DownloadError, cached_weights
from .errors import CheckpointError
from .files import check_target, file_sha256, load_checkpoint_file, save_checkpoint_file
from .plain import plain_checkpoint, restore_histories
from .reader import read_checkpoint
from .resumable import check_resumable

__all__ = [
    'CheckpointError',
    'ConfigTextError',
    'DownloadError',
    'cached_weights',
    'check_checkpoint',
    'check_resumable',
    'check_target',
    'check_weights',
    'config_from_json',
    'config_to_json',
    'file_sha256',
    'load_checkpoint_file',
    'parse_config_text',
    'plain_checkpoint',
    'read_checkpoint',
    'restore_histories',
    'save_checkpoint_file',
]
