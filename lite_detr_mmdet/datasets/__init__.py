"""Transforms of Lite DETR; importing this package registers them in mmdet."""

from .detr_resize import DETRResize

__all__ = ['DETRResize']
