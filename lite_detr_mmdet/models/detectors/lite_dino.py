"""Lite-DINO."""

from typing import Dict

from mmdet.models.detectors import DINO
from mmdet.registry import MODELS
from torch import Tensor

from .registry_transformer_mixin import RegistryTransformerMixin


@MODELS.register_module()
class LiteDINO(RegistryTransformerMixin, DINO):
    """DINO with an encoder and attention from the registry (Lite DETR, Sec. 4).

    Arguments are those of mmdet's ``DINO``; ``encoder`` takes a ``type`` (``LiteEncoder``), as do
    ``encoder.layer_cfg.self_attn_cfg`` and ``decoder.layer_cfg.cross_attn_cfg`` (``KeyAwareDeformableAttention``).
    """

    def forward_decoder(self, query: Tensor, **kwargs) -> Dict:
        """As the host's, with a gradient for the label embedding even in a batch without ground truth.

        Such a batch has no denoising queries. The host means to handle this, but compares the batch size with the
        number of queries, so that distributed training would wait for a gradient that never comes.
        """
        outputs = super().forward_decoder(query=query, **kwargs)
        if self.training and query.shape[1] == self.num_queries:
            unused = self.dn_query_generator.label_embedding.weight.sum() * 0.0
            outputs['hidden_states'] = outputs['hidden_states'] + unused
        return outputs
