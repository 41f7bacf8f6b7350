"""Overlays of detectors and heads: cache what depends only on shapes, skip what is not used."""

from typing import Dict, List, Optional, Tuple

import torch
from mmdet.models.dense_heads import DeformableDETRHead, DINOHead
from mmdet.models.detectors import DINO, DeformableDETR
from torch import Tensor, nn

from ..models.dense_heads import HDETRHead, LiteDINOHead
from ..models.detectors import LiteDINO
from ..models.detectors.registry_transformer_mixin import RegistryTransformerMixin
from .linears import blocks
from .overlay import Overlay, ShapeCache, applies, host_class, tensor_bytes

PRE_TRANSFORMERS = (DeformableDETR.pre_transformer, RegistryTransformerMixin.pre_transformer)
PROPOSALS = (DeformableDETR.gen_encoder_output_proposals, RegistryTransformerMixin.gen_encoder_output_proposals)
PRE_DECODERS = (DINO.pre_decoder, LiteDINO.pre_decoder)
HEAD_FORWARDS = (DeformableDETRHead.forward, LiteDINOHead.forward, HDETRHead.forward)
HEAD_PREDICTS = (DeformableDETRHead.predict,)


def has_known(module: nn.Module, name: str, known: tuple) -> bool:
    """Whether a method consists only of those that its overlay was written for; the first of them is the host's."""
    for parent in host_class(module).__mro__:
        if name in vars(parent):
            if vars(parent)[name] not in known:
                return False
            if vars(parent)[name] is known[0]:
                return True
    return False


class FastDeformableDETR(Overlay):
    """A deformable DETR that caches position embeddings and proposals for the last shapes."""

    def pre_transformer(self, mlvl_feats: Tuple[Tensor], batch_data_samples=None) -> Tuple[Dict, Dict]:
        host = super().pre_transformer
        height, width = batch_data_samples[0].batch_input_shape
        same_shape = all(tuple(sample.img_shape[:2]) == (height, width) for sample in batch_data_samples)
        if not (applies(self, mlvl_feats[0]) and has_known(self, 'pre_transformer', PRE_TRANSFORMERS)):
            return host(mlvl_feats, batch_data_samples)
        if not same_shape:
            return _without_empty_mask(*host(mlvl_feats, batch_data_samples))

        feat = torch.cat([feat.flatten(2).transpose(1, 2) for feat in mlvl_feats], 1)

        def make() -> Tuple[Dict, Dict]:
            encoder_inputs, decoder_inputs = host([feat[:1] for feat in mlvl_feats], batch_data_samples[:1])
            del encoder_inputs['feat']
            return encoder_inputs, decoder_inputs

        cache = self.__dict__.setdefault('shape_cache', ShapeCache())
        level_embed = self.level_embed
        key = (
            tuple(tuple(feat.shape[1:]) for feat in mlvl_feats),
            level_embed.data_ptr(),
            0 if level_embed.is_inference() else level_embed._version,
        )
        kept = cache.get(key, make, lambda inputs: sum(tensor_bytes(part.values()) for part in inputs))
        encoder_inputs, decoder_inputs = (dict(inputs) for inputs in kept)
        for inputs in (encoder_inputs, decoder_inputs):
            inputs['valid_ratios'] = inputs['valid_ratios'].expand(len(feat), -1, -1)
        return dict(feat=feat, **encoder_inputs), decoder_inputs

    def _kept_proposals(self, memory: Tensor, spatial_shapes: Tensor) -> Tuple[Tensor, Tensor]:
        """Proposals of images without padding, (1, num_value, 4), and where they are invalid, (1, num_value, 1)."""
        host = DeformableDETR.gen_encoder_output_proposals

        def make() -> Tuple[Tensor, Tensor]:
            empty = memory.new_zeros(1, 1, memory.shape[2]).expand(1, memory.shape[1], -1)
            proposals = host(self, empty, None, spatial_shapes)[1]
            return proposals, proposals.isinf().any(-1, keepdim=True)

        cache = self.__dict__.setdefault('proposal_cache', ShapeCache())
        return cache.get(tuple(map(tuple, spatial_shapes.tolist())), make, tensor_bytes)

    def gen_encoder_output_proposals(
        self, memory: Tensor, memory_mask: Optional[Tensor], spatial_shapes: Tensor
    ) -> Tuple[Tensor, Tensor]:
        fast = applies(self, memory) and memory_mask is None and memory.shape[1] >= self.num_queries
        if not fast or not has_known(self, 'gen_encoder_output_proposals', PROPOSALS):
            return super().gen_encoder_output_proposals(memory, memory_mask, spatial_shapes)
        proposals, invalid = self._kept_proposals(memory, spatial_shapes)
        output_memory = self.memory_trans_norm(self.memory_trans_fc(memory.masked_fill(invalid, 0.0)))
        return output_memory, proposals.expand(len(memory), -1, -1)


def _without_empty_mask(encoder_inputs: Dict, decoder_inputs: Dict) -> Tuple[Dict, Dict]:
    """Inputs without a padding mask that masks nothing."""
    mask = encoder_inputs['feat_mask']
    if mask is None or mask.any():
        return encoder_inputs, decoder_inputs
    return {**encoder_inputs, 'feat_mask': None}, {**decoder_inputs, 'memory_mask': None}


class FastDINO(FastDeformableDETR):
    """DINO: tokens are scored in blocks, and boxes are computed only for those that become queries."""

    def pre_decoder(
        self, memory: Tensor, memory_mask: Optional[Tensor], spatial_shapes: Tensor, batch_data_samples=None
    ) -> Tuple[Dict, Dict]:
        fast = applies(self, memory) and memory_mask is None and memory.shape[1] >= self.num_queries
        if not fast:
            return super().pre_decoder(memory, memory_mask, spatial_shapes, batch_data_samples)
        proposals, invalid = self._kept_proposals(memory, spatial_shapes)
        index = self.decoder.num_layers
        classify, regress = self.bbox_head.cls_branches[index], self.bbox_head.reg_branches[index]
        scores = memory.new_empty(memory.shape[:2])
        for image in range(len(memory)):
            for start, stop in blocks(memory.shape[1], 2 * memory.shape[2] + classify.out_features):
                rows = memory[image, start:stop].masked_fill(invalid[0, start:stop], 0.0)
                scores[image, start:stop] = classify(self.memory_trans_norm(self.memory_trans_fc(rows))).amax(-1)
        chosen = scores.topk(self.num_queries, dim=1).indices[..., None]
        rows = memory.gather(1, chosen.expand(-1, -1, memory.shape[2]))
        rows = rows.masked_fill(invalid.expand(len(memory), -1, -1).gather(1, chosen), 0.0)
        rows = self.memory_trans_norm(self.memory_trans_fc(rows))
        boxes = regress(rows) + proposals.expand(len(memory), -1, -1).gather(1, chosen.expand(-1, -1, 4))
        query = self.query_embedding.weight.expand(len(memory), -1, -1)
        return dict(query=query, memory=memory, reference_points=boxes.sigmoid(), dn_mask=None), {}


def is_known_dino(model: nn.Module) -> bool:
    """Whether queries are chosen as in DINO."""
    return isinstance(model, DINO) and has_known(model, 'pre_decoder', PRE_DECODERS)


class FastHead(Overlay):
    """A head of mmdet that computes only the last decoder layer's outputs, which become the detections."""

    def predict(self, hidden_states: Tensor, references: List[Tensor], batch_data_samples, rescale: bool = True):
        num_layers = len(hidden_states)
        if not applies(self, hidden_states) or num_layers < 2:
            return super().predict(hidden_states, references, batch_data_samples, rescale=rescale)
        return self._last_layer(num_layers - 1).predict(
            hidden_states[-1:], references[num_layers - 1 :], batch_data_samples, rescale=rescale
        )

    def _last_layer(self, index: int) -> nn.Module:
        """This head with the branches of only one layer."""
        head = object.__new__(type(self))
        branches = {name: nn.ModuleList([getattr(self, name)[index]]) for name in ('cls_branches', 'reg_branches')}
        head.__dict__ = {**self.__dict__, '_modules': {**self._modules, **branches}}
        return head


def is_known_head(head: nn.Module) -> bool:
    """Whether the head is one whose outputs belong to layers one by one."""
    return (
        isinstance(head, (DeformableDETRHead, DINOHead))
        and has_known(head, 'forward', HEAD_FORWARDS)
        and has_known(head, 'predict', HEAD_PREDICTS)
    )
