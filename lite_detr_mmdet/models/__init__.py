"""Models of Lite DETR; importing this package registers them in mmdet."""

from . import dense_heads, detectors, layers

__all__ = ['dense_heads', 'detectors', 'layers']
