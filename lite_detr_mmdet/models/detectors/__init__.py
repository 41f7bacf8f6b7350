"""Lite DETR detectors."""

from .lite_ddq_detr import LiteDDQDETR
from .lite_deformable_detr import LiteDeformableDETR
from .lite_dino import LiteDINO
from .registry_transformer_mixin import RegistryTransformerMixin

__all__ = ['LiteDDQDETR', 'LiteDINO', 'LiteDeformableDETR', 'RegistryTransformerMixin']
