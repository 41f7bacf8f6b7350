"""The public Python API: names, configs, weights, inference."""

from ..acceleration import accelerate
from ..zoo import get_config, list_models
from .detector import Detector
from .models import get_model

__all__ = ['Detector', 'accelerate', 'get_config', 'get_model', 'list_models']
