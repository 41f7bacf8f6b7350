"""Lite-Deformable-DETR."""

from mmdet.models.detectors import DeformableDETR
from mmdet.registry import MODELS

from .registry_transformer_mixin import RegistryTransformerMixin


@MODELS.register_module()
class LiteDeformableDETR(RegistryTransformerMixin, DeformableDETR):
    """Deformable DETR with an encoder and attention from the registry (Lite DETR, Sec. 4, Table 3).

    Arguments are those of mmdet's ``DeformableDETR``; ``encoder`` takes a ``type`` (``LiteEncoder``), as do
    ``encoder.layer_cfg.self_attn_cfg`` and ``decoder.layer_cfg.cross_attn_cfg`` (``KeyAwareDeformableAttention``).
    """
