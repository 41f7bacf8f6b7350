"""Layers of the Lite DETR detectors."""

from .fused_attention import FusedMultiScaleDeformableAttention, restore_attention, swap_attention
from .key_aware_deformable_attention import KeyAwareDeformableAttention
from .lite_dino_decoder import LiteDinoDecoder, LiteGroundingDinoDecoder
from .lite_encoder import LiteEncoder
from .lite_encoder_layer import LiteEncoderLayer
from .lite_grounding_dino_encoder import LiteGroundingDinoEncoder
from .lite_pixel_decoder import LiteMSDeformAttnPixelDecoder

__all__ = [
    'FusedMultiScaleDeformableAttention',
    'KeyAwareDeformableAttention',
    'LiteDinoDecoder',
    'LiteEncoder',
    'LiteEncoderLayer',
    'LiteGroundingDinoDecoder',
    'LiteGroundingDinoEncoder',
    'LiteMSDeformAttnPixelDecoder',
    'restore_attention',
    'swap_attention',
]
