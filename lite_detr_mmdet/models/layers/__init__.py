"""Layers of the Lite DETR detectors."""

from .key_aware_deformable_attention import KeyAwareDeformableAttention
from .lite_encoder import LiteEncoder
from .lite_encoder_layer import LiteEncoderLayer

__all__ = ['KeyAwareDeformableAttention', 'LiteEncoder', 'LiteEncoderLayer']
