"""The one hook that lets any deformable DETR of mmdet take its encoder and its attention from the registry."""

from typing import Dict, Optional, Sequence, Tuple

import torch
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList
from torch import Tensor
from torch.nn import functional as F


def _embed_dims(encoder_cfg: dict) -> int:
    return encoder_cfg['layer_cfg']['self_attn_cfg'].get('embed_dims', 256)


def _attribute(module: object, path: str) -> Optional[int]:
    """Value at a dotted path of attributes and indices, None where a part of the model has another form."""
    for name in path.split('.'):
        module = module[int(name)] if name.isdigit() and len(module) else getattr(module, name, None)
    return module


class RegistryTransformerMixin:
    """Build ``encoder`` and the decoder's cross-attention from the registry.

    mmdet's hosts name their encoder and attention classes in the code. With this mixin in front of a host
    (``class LiteDINO(RegistryTransformerMixin, DINO)``) the host's ``encoder`` config takes a ``type``, and so does
    ``decoder.layer_cfg.cross_attn_cfg``. All else stays as the host has it, with two exceptions: any width works
    (:attr:`decoder_type`, :meth:`get_proposal_pos_embed`), and so do images with fewer tokens than queries, at which
    two-stage hosts stop with an error (:meth:`gen_encoder_output_proposals`).

    Attributes:
        decoder_type (str, optional): Registered decoder that takes the place of the host's, a subclass of it; None to
            keep the host's.
    """

    decoder_type: Optional[str] = None

    def _init_layers(self) -> None:
        """Let the host build its layers, then put the configured ones in their place."""
        encoder_cfg = self.encoder
        decoder_cfg = self.decoder
        self.encoder = self._placeholder_encoder(encoder_cfg)
        cross_attn_cfg = dict(decoder_cfg['layer_cfg'].get('cross_attn_cfg', {}))
        if 'type' in cross_attn_cfg:
            layer_cfg = {**decoder_cfg['layer_cfg'], 'cross_attn_cfg': dict(embed_dims=_embed_dims(encoder_cfg))}
            decoder_cfg = {**decoder_cfg, 'layer_cfg': layer_cfg}
        self.decoder = decoder_cfg
        self._init_host_layers()
        self.encoder = MODELS.build(encoder_cfg)
        if self.decoder_type is not None:
            self.decoder = MODELS.build({**decoder_cfg, 'type': self.decoder_type})
        if 'type' in cross_attn_cfg:
            for layer in self.decoder.layers:
                layer.cross_attn = MODELS.build({'batch_first': True, **cross_attn_cfg})
        self._check_widths()

    def _check_widths(self) -> None:
        """Compare the widths that a config gives in many places.

        Raises:
            ValueError: If they differ; the message names the keys.
        """
        places = {
            'neck.out_channels': 'neck.convs.0.out_channels',
            'encoder.layer_cfg.self_attn_cfg.embed_dims': 'encoder.layers.0.self_attn.embed_dims',
            'encoder.layer_cfg.ffn_cfg.embed_dims': 'encoder.layers.0.ffn.embed_dims',
            'decoder.layer_cfg.self_attn_cfg.embed_dims': 'decoder.layers.0.self_attn.embed_dims',
            'decoder.layer_cfg.cross_attn_cfg.embed_dims': 'decoder.layers.0.cross_attn.embed_dims',
            'decoder.layer_cfg.ffn_cfg.embed_dims': 'decoder.layers.0.ffn.embed_dims',
            'bbox_head.embed_dims': 'bbox_head.embed_dims',
        }
        widths = {key: width for key, place in places.items() if (width := _attribute(self, place)) is not None}
        if len(set(widths.values())) > 1:
            found = ', '.join(f'{key} {width}' for key, width in widths.items())
            raise ValueError(f'all parts of the transformer must have the same width, got {found}')

    def _placeholder_encoder(self, encoder_cfg: dict) -> dict:
        """The smallest encoder that the host can build, of the same width, which it reads while it builds the rest."""
        embed_dims = _embed_dims(encoder_cfg)
        return dict(
            num_layers=1,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=embed_dims),
                ffn_cfg=dict(embed_dims=embed_dims, feedforward_channels=1),
            ),
        )

    def _init_host_layers(self) -> None:
        """Let the host build its layers from ``self.encoder`` and ``self.decoder``, configs that it understands."""
        super()._init_layers()

    def pre_transformer(
        self, mlvl_feats: Tuple[Tensor], batch_data_samples: OptSampleList = None
    ) -> Tuple[Dict, Dict]:
        """As the host's; adds the level shapes in Python numbers, so that the encoder need not synchronise."""
        encoder_inputs, decoder_inputs = super().pre_transformer(mlvl_feats, batch_data_samples)
        level_shapes = [tuple(feat.shape[-2:]) for feat in mlvl_feats]
        encoder_inputs['level_shapes'] = level_shapes
        if getattr(self.encoder, 'drops_low_levels', False):
            decoder_inputs = self._drop_low_levels(decoder_inputs, level_shapes)
        return encoder_inputs, decoder_inputs

    def forward_encoder(
        self,
        feat: Tensor,
        feat_mask: Optional[Tensor],
        feat_pos: Tensor,
        level_shapes: Sequence[Tuple[int, int]],
        **kwargs,
    ) -> Dict:
        """Run the encoder; shapes as in the host's ``forward_encoder``."""
        memory = self.encoder(
            query=feat, query_pos=feat_pos, key_padding_mask=feat_mask, level_shapes=level_shapes, **kwargs
        )
        outputs = dict(memory_mask=feat_mask, spatial_shapes=kwargs['spatial_shapes'])
        if getattr(self.encoder, 'drops_low_levels', False):
            outputs = self._drop_low_levels(outputs, level_shapes)
        return dict(memory=memory, **outputs)

    def get_proposal_pos_embed(self, proposals: Tensor, num_pos_feats: int = 128, *args, **kwargs) -> Tensor:
        """As the host's, in the width of the model; the host embeds 128 features, which fits 256 channels only.

        Args:
            proposals (Tensor): Boxes before the sigmoid, (bs, num_queries, 4).
            num_pos_feats (int): Ignored: half the width.

        Returns:
            Tensor: (bs, num_queries, 2 * dim).
        """
        return super().get_proposal_pos_embed(proposals, self.embed_dims // 2, *args, **kwargs)

    def gen_encoder_output_proposals(
        self, memory: Tensor, memory_mask: Optional[Tensor], spatial_shapes: Tensor
    ) -> Tuple[Tensor, Tensor]:
        """As the host's, with at least as many proposals as queries.

        Two-stage hosts choose the best ``num_queries`` proposals. On a small image there are fewer: the rest is what
        the host makes of padded tokens, which it too chooses where there is nothing better. So the number of queries,
        on which the host's embeddings, masks and heads rely, stays the same.

        Returns:
            tuple[Tensor, Tensor]: Transformed memory, (bs, max(num_value, num_queries), dim), and proposals before
            the sigmoid, (bs, max(num_value, num_queries), 4).
        """
        output_memory, proposals = super().gen_encoder_output_proposals(memory, memory_mask, spatial_shapes)
        missing = self.num_queries - memory.shape[1]
        if missing > 0:
            padding = memory.new_zeros(len(memory), missing, memory.shape[2])
            empty = self.memory_trans_norm(self.memory_trans_fc(padding))
            output_memory = torch.cat([output_memory, empty], dim=1)
            proposals = F.pad(proposals, (0, 0, 0, missing), value=float('inf'))
        return output_memory, proposals

    def _drop_low_levels(self, inputs: Dict, level_shapes: Sequence[Tuple[int, int]]) -> Dict:
        """The inputs of the decoder that go with a memory of high-level tokens only."""
        num_low_levels = self.encoder.num_low_levels
        split = sum(height * width for height, width in level_shapes[:num_low_levels])
        inputs = dict(inputs)
        if inputs['memory_mask'] is not None:
            inputs['memory_mask'] = inputs['memory_mask'][:, split:]
        inputs['spatial_shapes'] = inputs['spatial_shapes'][num_low_levels:]
        if 'level_start_index' in inputs:
            inputs['level_start_index'] = inputs['level_start_index'][num_low_levels:] - split
            inputs['valid_ratios'] = inputs['valid_ratios'][:, num_low_levels:]
        return inputs
