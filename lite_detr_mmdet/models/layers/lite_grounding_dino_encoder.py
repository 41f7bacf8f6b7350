"""The interleaved encoder with the text fusion of Grounding DINO."""

from typing import Optional, Sequence, Tuple

import torch
from mmdet.models.layers.transformer.detr_layers import DetrTransformerEncoderLayer
from mmdet.models.layers.transformer.utils import get_text_sine_pos_embed
from mmdet.models.utils.vlfuse_helper import SingleScaleBiAttentionBlock
from mmdet.registry import MODELS
from mmengine.model import ModuleList
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .lite_encoder import LiteEncoder
from .lite_encoder_layer import TokenParts, replace_tokens


@MODELS.register_module()
class LiteGroundingDinoEncoder(LiteEncoder):
    """Interleaved encoder of image and text; not in the paper.

    Before each layer Grounding DINO fuses all image tokens with the text, by attention in both directions, then lets
    the text attend to itself. Here **only high-level tokens are fused**. In Grounding DINO's size a fusion costs each
    image token 3 * 256 * 1024 multiply-adds in projections alone, more than all that a block's last layer does with a
    low-level token; fusing these too would take back what interleaving saves. Text and image still reach each other
    everywhere: low-level tokens sample fused high-level tokens in the last layer of each block, and the text sees the
    low-level tokens through the high-level ones that sampled them.

    With ``num_low_levels=0`` it is the encoder of Grounding DINO, bit for bit and with the same state dict.

    Args:
        text_layer_cfg (dict): Config of the layers in which the text attends to itself.
        fusion_layer_cfg (dict): Config of the fusion of image and text.
        fuse_low_level (bool): Whether each fusion takes the tokens that the layer after it updates, so that low-level
            tokens are fused too, once in each block. Defaults to False.
        args, kwargs: See ``LiteEncoder``.
    """

    def __init__(
        self, *args, text_layer_cfg: dict, fusion_layer_cfg: dict, fuse_low_level: bool = False, **kwargs
    ) -> None:
        self.text_layer_cfg = text_layer_cfg
        self.fusion_layer_cfg = fusion_layer_cfg
        self.fuse_low_level = fuse_low_level
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        """Build the layers of image, text and fusion; names are those of Grounding DINO."""
        super()._init_layers()
        indices = range(self.num_layers)
        self.text_layers = ModuleList([DetrTransformerEncoderLayer(**self.text_layer_cfg) for _ in indices])
        self.fusion_layers = ModuleList([SingleScaleBiAttentionBlock(**self.fusion_layer_cfg) for _ in indices])

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        key_padding_mask: Optional[Tensor],
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        valid_ratios: Tensor,
        memory_text: Tensor,
        text_attention_mask: Tensor,
        text_self_attention_masks: Tensor,
        position_ids: Tensor,
        level_shapes: Optional[Sequence[Tuple[int, int]]] = None,
    ) -> Tuple[Tensor, Tensor]:
        """Encode image and text.

        Args:
            query (Tensor): Tokens of all levels, (bs, num_value, dim).
            query_pos (Tensor): Positional and level embedding, (bs, num_value, dim).
            key_padding_mask (Tensor, optional): True at padded tokens, (bs, num_value).
            spatial_shapes (Tensor): (H_l, W_l) of each level, (num_levels, 2).
            level_start_index (Tensor): First token of each level, (num_levels, ).
            valid_ratios (Tensor): Valid share (w, h) of each level's map, (bs, num_levels, 2).
            memory_text (Tensor): Text tokens, (bs, len_text, dim).
            text_attention_mask (Tensor): True at padded text tokens, (bs, len_text).
            text_self_attention_masks (Tensor): True where a text token may attend to another,
                (bs, len_text, len_text).
            position_ids (Tensor): Position of each text token in its phrase, (bs, len_text).
            level_shapes (sequence[tuple[int, int]], optional): ``spatial_shapes`` in Python numbers. Without it they
                are read back from the device once. Defaults to None.

        Returns:
            tuple[Tensor, Tensor]: Memory, (bs, num_value, dim), only the high-level tokens with
            ``low_level_update='none'``; and text tokens, (bs, len_text, dim).
        """
        if level_shapes is None:
            level_shapes = spatial_shapes.tolist()
        parts = self.token_parts(level_shapes)
        text_pos = get_text_sine_pos_embed(position_ids[..., None], num_pos_feats=self.embed_dims, exchange_xy=False)
        inputs = dict(
            query_pos=query_pos,
            reference_points=self.get_encoder_reference_points(level_shapes, valid_ratios, device=query.device),
            key_padding_mask=key_padding_mask,
            spatial_shapes=spatial_shapes,
            level_start_index=level_start_index,
            valid_ratios=valid_ratios,
        )
        for index, text_layer in enumerate(self.text_layers):
            query, memory_text = self._fuse(index, query, memory_text, parts, key_padding_mask, text_attention_mask)
            memory_text = text_layer(
                query=memory_text,
                query_pos=text_pos,
                attn_mask=~text_self_attention_masks.repeat(text_layer.self_attn.num_heads, 1, 1),
                key_padding_mask=None,
            )
            query = self.update_tokens(index, query, parts, in_place=True, **inputs)
        return query[:, parts.high] if self.drops_low_levels else query, memory_text

    def _fuse(
        self,
        index: int,
        query: Tensor,
        memory_text: Tensor,
        parts: TokenParts,
        key_padding_mask: Optional[Tensor],
        text_attention_mask: Tensor,
    ) -> Tuple[Tensor, Tensor]:
        """Fuse image tokens with the text in fusion layer ``index``."""
        part = self.updated_part(index, parts) if self.fuse_low_level else parts.high
        inputs = dict(
            visual_feature=query[:, part],
            lang_feature=memory_text,
            attention_mask_v=None if key_padding_mask is None else key_padding_mask[:, part],
            attention_mask_l=text_attention_mask,
        )
        fusion = self.fusion_layers[index]
        if index < self.num_cp and torch.is_grad_enabled():
            fused, memory_text = checkpoint(fusion, **inputs, use_reentrant=False)
        else:
            fused, memory_text = fusion(**inputs)
        return replace_tokens(query, part, fused, in_place=index > 0), memory_text
