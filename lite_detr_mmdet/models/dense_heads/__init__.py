"""Heads of the Lite DETR detectors and their hosts."""

from .h_detr_head import HDETRHead

__all__ = ['HDETRHead']
