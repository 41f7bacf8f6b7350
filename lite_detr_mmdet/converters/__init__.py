"""Translation of checkpoints between the authors' repositories and mmdet."""

from .matching_config import MatchingConfig, find_matching_config
from .official import ConversionReport, mmdet_to_official, official_to_mmdet

__all__ = [
    'ConversionReport',
    'MatchingConfig',
    'find_matching_config',
    'mmdet_to_official',
    'official_to_mmdet',
]
