"""What detectors cost."""

from .compute import PARTS, count_compute, count_config
from .fvcore_protocol import count_by_operator, count_like_the_authors
from .tokens import LevelTokens, count_tokens

__all__ = [
    'PARTS',
    'LevelTokens',
    'count_by_operator',
    'count_compute',
    'count_config',
    'count_like_the_authors',
    'count_tokens',
]
