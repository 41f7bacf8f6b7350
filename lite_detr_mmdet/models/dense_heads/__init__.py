"""Heads of the Lite DETR detectors and their hosts."""

from .h_detr_head import HDETRHead
from .lite_dino_head import LiteDINOHead

__all__ = ['HDETRHead', 'LiteDINOHead']
