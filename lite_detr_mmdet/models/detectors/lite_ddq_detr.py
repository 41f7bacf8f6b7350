"""Lite-DDQ-DETR."""

from typing import Tuple

from mmdet.models.detectors import DDQDETR
from mmdet.registry import MODELS
from torch import Tensor

from .lite_dino import LiteDINO


@MODELS.register_module()
class LiteDDQDETR(LiteDINO, DDQDETR):
    """DDQ-DETR with an encoder and attention from the registry; not in the paper.

    Arguments are those of mmdet's ``DDQDETR``; ``encoder`` takes a ``type`` (``LiteEncoder``), as do
    ``encoder.layer_cfg.self_attn_cfg`` and ``decoder.layer_cfg.cross_attn_cfg`` (``KeyAwareDeformableAttention``).
    """

    decoder_type = None  # the host's own works at any width

    def _init_host_layers(self) -> None:
        """Give the host the decoder's config in the attribute where it looks for it."""
        self.decoder_cfg = self.decoder
        super()._init_host_layers()

    def gen_encoder_output_proposals(self, *args, **kwargs) -> Tuple[Tensor, Tensor]:
        """The host's own: it fills up missing queries itself, and takes the content of queries from their tokens."""
        return DDQDETR.gen_encoder_output_proposals(self, *args, **kwargs)
