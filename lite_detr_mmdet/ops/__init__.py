"""Operators of Lite DETR. This package imports torch only: it works without mmcv and mmdet."""

from . import autograd, flops  # noqa: F401  (register with torch)
from .functional import key_aware_deform_attn, multi_scale_deform_attn

__all__ = ['key_aware_deform_attn', 'multi_scale_deform_attn']
