"""The decoder of DINO at any width, with the shapes of the released weights."""

from typing import Tuple

import torch
from mmdet.models.layers import MLP, DinoTransformerDecoder, coordinate_to_encoding, inverse_sigmoid
from mmdet.models.layers.transformer.grounding_dino_layers import GroundingDinoTransformerDecoder
from mmdet.registry import MODELS
from torch import Tensor, nn

REFERENCE_EPS = 1e-3  # distance of the references from 0 and 1 on their way to logits, as in the authors' code


@MODELS.register_module()
class LiteDinoDecoder(DinoTransformerDecoder):
    """mmdet's decoder of DINO that does not depend on a width of 256 channels, nor on the version of its host.

    The position of a query is made from the sine embedding of its reference box, ``embed_dims / 2`` features for each
    of the four numbers, by ``ref_point_head``, so its first layer has ``2 * embed_dims`` inputs. That is the shape of
    all released weights. mmdet 3.3 embeds 128 features whatever the width is, which fits 256 channels only; its
    successor OneDL (from 3.4.6 on) takes ``4 * embed_dims`` inputs, which fit no released weights.

    At 256 channels it is the decoder of mmdet 3.3, bit for bit and with the same state dict.

    Args:
        args, kwargs: See mmdet's ``DinoTransformerDecoder``.

    Raises:
        ValueError: If the width is not a multiple of 4: sines and cosines of each coordinate need as many features.
    """

    def _init_layers(self) -> None:
        """Build the host's layers, and the released form of ``ref_point_head`` where the host has another one."""
        super()._init_layers()
        if self.embed_dims % 4:
            raise ValueError(f"the decoder's embed_dims must be a multiple of 4, got {self.embed_dims}")
        if self.ref_point_head.layers[0].in_features != 2 * self.embed_dims:
            self.ref_point_head = MLP(2 * self.embed_dims, self.embed_dims, self.embed_dims, 2)

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        key_padding_mask: Tensor,
        self_attn_mask: Tensor,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        valid_ratios: Tensor,
        reg_branches: nn.ModuleList,
        **kwargs,
    ) -> Tuple[Tensor, Tensor]:
        """Decode the queries and refine their boxes layer by layer.

        Args:
            query (Tensor): Contents of the queries, (bs, num_queries, dim).
            value (Tensor): Memory, (bs, num_value, dim).
            key_padding_mask (Tensor): True at padded tokens, (bs, num_value), or None.
            self_attn_mask (Tensor): True where a query must not see another, (num_queries, num_queries), or None.
            reference_points (Tensor): Boxes of the queries, normalised (cx, cy, w, h), (bs, num_queries, 4).
            spatial_shapes (Tensor): (H_l, W_l) of each level, (num_levels, 2).
            level_start_index (Tensor): First token of each level, (num_levels, ).
            valid_ratios (Tensor): Valid share (w, h) of each level's map, (bs, num_levels, 2).
            reg_branches (nn.ModuleList): Box branch of each layer.

        Returns:
            tuple[Tensor, Tensor]: Normalised queries after each layer, (num_layers, bs, num_queries, dim), and boxes
            before the first and after each layer, (num_layers + 1, bs, num_queries, 4). A box starts from the
            detached box of the layer before and is not detached itself ("look forward twice", DINO, Sec. 3.5). With
            ``return_intermediate=False``, the queries and the detached boxes after the last layer.
        """
        box_ratios = torch.cat([valid_ratios, valid_ratios], dim=-1)[:, None]
        hidden_states, references = [], [reference_points]
        for layer, reg_branch in zip(self.layers, reg_branches):
            level_references = reference_points[:, :, None] * box_ratios
            embedding = coordinate_to_encoding(level_references[:, :, 0], num_feats=self.embed_dims // 2)
            query = layer(
                query,
                query_pos=self.ref_point_head(embedding),
                value=value,
                key_padding_mask=key_padding_mask,
                self_attn_mask=self_attn_mask,
                spatial_shapes=spatial_shapes,
                level_start_index=level_start_index,
                valid_ratios=valid_ratios,
                reference_points=level_references,
                **kwargs,
            )
            boxes = (reg_branch(query) + inverse_sigmoid(reference_points, eps=REFERENCE_EPS)).sigmoid()
            reference_points = boxes.detach()
            if self.return_intermediate:
                hidden_states.append(self.norm(query))
                references.append(boxes)
        if self.return_intermediate:
            return torch.stack(hidden_states), torch.stack(references)
        return query, reference_points


@MODELS.register_module()
class LiteGroundingDinoDecoder(LiteDinoDecoder, GroundingDinoTransformerDecoder):
    """The decoder of Grounding DINO, which attends to the text as well, in the form of :class:`LiteDinoDecoder`."""
