"""Lite-DINO."""

from typing import Dict, Tuple

from mmdet.models.detectors import DINO
from mmdet.registry import MODELS

from .registry_transformer_mixin import RegistryTransformerMixin


@MODELS.register_module()
class LiteDINO(RegistryTransformerMixin, DINO):
    """DINO with an encoder and attention from the registry (Lite DETR, Sec. 4).

    Arguments are those of mmdet's ``DINO``; ``encoder`` takes a ``type`` (``LiteEncoder``), as do
    ``encoder.layer_cfg.self_attn_cfg`` and ``decoder.layer_cfg.cross_attn_cfg`` (``KeyAwareDeformableAttention``).
    Any width works (:class:`LiteDinoDecoder`). With ``encoder.num_low_levels=0`` and ordinary attention it is DINO.
    """

    decoder_type = 'LiteDinoDecoder'

    def pre_decoder(self, *args, **kwargs) -> Tuple[Dict, Dict]:
        """As the host's, with a gradient for the label embedding even in a batch without ground truth.

        Such a batch has no denoising queries. The host means to handle this, but compares the batch size with the
        number of queries, so that distributed training would wait for a gradient that never comes.
        """
        decoder_inputs, head_inputs = super().pre_decoder(*args, **kwargs)
        dn_meta = head_inputs.get('dn_meta')
        if dn_meta is not None and dn_meta['num_denoising_queries'] == 0:
            unused = self.dn_query_generator.label_embedding.weight.sum() * 0.0
            decoder_inputs['query'] = decoder_inputs['query'] + unused
        return decoder_inputs, head_inputs
