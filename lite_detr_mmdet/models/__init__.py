"""Models of Lite DETR; importing this package registers them in mmdet."""

from . import backbones, dense_heads, detectors, layers

__all__ = ['backbones', 'dense_heads', 'detectors', 'layers']
