"""Evaluators; importing this package registers them in mmdet."""

from .faster_coco_metric import FasterCocoMetric

__all__ = ['FasterCocoMetric']
