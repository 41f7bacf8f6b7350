"""Lite-H-DETR."""

from typing import Tuple

from mmdet.registry import MODELS
from torch import Tensor

from .h_detr import HDETR
from .registry_transformer_mixin import RegistryTransformerMixin


@MODELS.register_module()
class LiteHDETR(RegistryTransformerMixin, HDETR):
    """H-DETR with an encoder and attention from the registry (Lite DETR, Sec. 4).

    Arguments are those of :class:`HDETR`; ``encoder`` takes a ``type`` (``LiteEncoder``), as do
    ``encoder.layer_cfg.self_attn_cfg`` and ``decoder.layer_cfg.cross_attn_cfg`` (``KeyAwareDeformableAttention``).
    """

    def gen_encoder_output_proposals(self, *args, **kwargs) -> Tuple[Tensor, Tensor]:
        """The host's own: from a small image it takes fewer queries, so there is nothing to fill up."""
        return HDETR.gen_encoder_output_proposals(self, *args, **kwargs)
