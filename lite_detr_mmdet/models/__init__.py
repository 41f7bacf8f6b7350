"""Models of Lite DETR; importing this package registers them in mmdet."""

from . import detectors, layers

__all__ = ['detectors', 'layers']
