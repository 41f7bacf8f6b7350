"""What detectors cost."""

from .compute import PARTS, count_compute, count_config

__all__ = ['PARTS', 'count_compute', 'count_config']
