"""Lite DETR detectors."""

from .h_detr import HDETR
from .lite_ddq_detr import LiteDDQDETR
from .lite_deformable_detr import LiteDeformableDETR
from .lite_dino import LiteDINO
from .lite_grounding_dino import LiteGroundingDINO
from .lite_h_detr import LiteHDETR
from .registry_transformer_mixin import RegistryTransformerMixin

__all__ = [
    'HDETR',
    'LiteDDQDETR',
    'LiteDINO',
    'LiteDeformableDETR',
    'LiteGroundingDINO',
    'LiteHDETR',
    'RegistryTransformerMixin',
]
