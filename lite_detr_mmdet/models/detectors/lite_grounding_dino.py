"""Lite-Grounding-DINO."""

import copy
from typing import Dict

from mmdet.models.detectors import GroundingDINO
from mmdet.registry import MODELS

from .lite_dino import LiteDINO


@MODELS.register_module()
class LiteGroundingDINO(LiteDINO, GroundingDINO):
    """Grounding DINO with an encoder and attention from the registry; not in the paper.

    Arguments are those of mmdet's ``GroundingDINO``; ``encoder`` takes a ``type`` (``LiteGroundingDinoEncoder``), as
    do ``encoder.layer_cfg.self_attn_cfg`` and ``decoder.layer_cfg.cross_attn_cfg`` (``KeyAwareDeformableAttention``).
    """

    decoder_type = 'LiteGroundingDinoDecoder'

    def _placeholder_encoder(self, encoder_cfg: dict) -> dict:
        """Same as in the other hosts, with the text layers that Grounding DINO's encoder asks for."""
        text_cfgs = {key: copy.deepcopy(encoder_cfg[key]) for key in ('text_layer_cfg', 'fusion_layer_cfg')}
        return {**super()._placeholder_encoder(encoder_cfg), **text_cfgs}

    def forward_encoder(self, text_dict: Dict, **kwargs) -> Dict:
        """Run the encoder on image and text; shapes as in the host's ``forward_encoder``."""
        outputs = super().forward_encoder(
            memory_text=text_dict['embedded'],
            text_attention_mask=~text_dict['text_token_mask'],
            text_self_attention_masks=text_dict['masks'],
            position_ids=text_dict['position_ids'],
            **kwargs,
        )
        memory, memory_text = outputs.pop('memory')
        return dict(memory=memory, memory_text=memory_text, text_token_mask=text_dict['text_token_mask'], **outputs)
