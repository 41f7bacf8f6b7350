"""What detectors cost, and what they attend to."""

from .attention import AttentionLayer, AttentionTrace, QuerySelection
from .compute import PARTS, count_compute, count_config
from .fvcore_protocol import count_by_operator, count_like_the_authors
from .sampling import Samples
from .tokens import LevelTokens, count_tokens
from .trace_attention import trace_attention

__all__ = [
    'PARTS',
    'AttentionLayer',
    'AttentionTrace',
    'LevelTokens',
    'QuerySelection',
    'Samples',
    'count_by_operator',
    'count_compute',
    'count_config',
    'count_like_the_authors',
    'count_tokens',
    'trace_attention',
]
