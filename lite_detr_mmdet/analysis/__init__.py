"""What detectors cost, and what the shipped ones are said to reach."""

from .compute import PARTS, count_compute, count_config
from .model_zoo import ShippedModel, find_model_zoo, read_model_zoo

__all__ = ['PARTS', 'ShippedModel', 'count_compute', 'count_config', 'find_model_zoo', 'read_model_zoo']
