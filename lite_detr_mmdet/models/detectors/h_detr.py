"""H-DETR, which mmdet does not have."""

from typing import Dict, Optional, Tuple

import torch
from mmdet.models.detectors import DeformableDETR
from mmdet.registry import MODELS
from mmdet.utils import OptConfigType
from torch import Tensor, nn

from ..dense_heads import HDETRHead


@MODELS.register_module()
class HDETR(DeformableDETR):
    """H-DETR (https://arxiv.org/abs/2207.13080): two-stage Deformable DETR with a hybrid of two matchings.

    Training decodes one-to-one and one-to-many queries in one pass with the same weights; the groups do not see each
    other in self-attention. Inference decodes the one-to-one queries alone, without non-maximum suppression. The
    encoder's best tokens give the boxes of the queries, in the order of their scores one-to-one queries first, and a
    learned table gives their contents (mixed selection). Boxes are refined looking forward twice (:class:`HDETRHead`).

    With ``num_queries_one2many=0`` it is the one-to-one baseline of the paper. In an image with fewer tokens than
    queries every token becomes a query.

    Args:
        num_queries (int): Number of one-to-one queries. Defaults to 300.
        num_queries_one2many (int): Number of one-to-many queries in training. Defaults to 1500.
        bbox_head (dict): Config of a :class:`HDETRHead`; the detector adds the numbers of queries and layers.
        with_box_refine (bool): Must be True. Defaults to True.
        as_two_stage (bool): Must be True. Defaults to True.
        args, kwargs: See mmdet's ``DeformableDETR``.

    Raises:
        ValueError: If a number of queries is out of range, the model is not two-stage with refinement, or the head is
            not one of H-DETR.
    """

    def __init__(
        self,
        *args,
        num_queries: int = 300,
        num_queries_one2many: int = 1500,
        bbox_head: OptConfigType = None,
        with_box_refine: bool = True,
        as_two_stage: bool = True,
        **kwargs,
    ) -> None:
        if num_queries < 1:
            raise ValueError(f'num_queries must be at least 1, got {num_queries}')
        if num_queries_one2many < 0:
            raise ValueError(f'num_queries_one2many must not be negative, got {num_queries_one2many}')
        if not (as_two_stage and with_box_refine):
            raise ValueError(
                f'H-DETR needs as_two_stage=True and with_box_refine=True, got {as_two_stage=} and {with_box_refine=}'
            )
        self.num_queries_one2many = num_queries_one2many
        super().__init__(
            *args,
            num_queries=num_queries,
            bbox_head=self._complete_head(bbox_head, num_queries, num_queries_one2many),
            with_box_refine=with_box_refine,
            as_two_stage=as_two_stage,
            **kwargs,
        )

    @staticmethod
    def _complete_head(bbox_head: OptConfigType, num_queries: int, num_queries_one2many: int) -> dict:
        """Tell the head how many queries there are."""
        head_type = (bbox_head or {}).get('type')
        head_class = MODELS.get(head_type) if isinstance(head_type, str) else head_type
        if not (isinstance(head_class, type) and issubclass(head_class, HDETRHead)):
            raise ValueError(f"bbox_head.type must be 'HDETRHead' or a subclass of it, got {head_type!r}")
        numbers = dict(num_queries_one2one=num_queries, num_queries_one2many=num_queries_one2many)
        for name in numbers:
            if name in bbox_head:
                raise ValueError(f'bbox_head must not set {name}, the detector does; got {bbox_head[name]}')
        return {**bbox_head, **numbers}

    def _init_layers(self) -> None:
        """Build the host's layers and the table of query contents, one-to-one queries first."""
        super()._init_layers()
        self.query_embedding = nn.Embedding(self.num_queries + self.num_queries_one2many, self.embed_dims)

    def pre_decoder(
        self, memory: Tensor, memory_mask: Optional[Tensor], spatial_shapes: Tensor
    ) -> Tuple[Dict[str, Optional[Tensor]], Dict[str, Tensor]]:
        """Select the queries (mixed selection, Sec. 4.1 of the paper).

        Args:
            memory (Tensor): Output of the encoder, (bs, num_value, dim).
            memory_mask (Tensor, optional): True at padded tokens, (bs, num_value).
            spatial_shapes (Tensor): (H_l, W_l) of each level, (num_levels, 2).

        Returns:
            tuple[dict, dict]: Inputs of the decoder and, in training, of the head, as the host's;
            ``self_attn_mask`` comes on top.
        """
        output_memory, proposals = self.gen_encoder_output_proposals(memory, memory_mask, spatial_shapes)
        classes = self.bbox_head.cls_branches[self.decoder.num_layers](output_memory)
        boxes_unact = self.bbox_head.reg_branches[self.decoder.num_layers](output_memory) + proposals

        num_queries = self.num_queries + (self.num_queries_one2many if self.training else 0)
        num_queries = min(num_queries, memory.shape[1])
        # Channel 0 of the encoder's classes stands for "foreground".
        indices = classes[..., 0].topk(num_queries, dim=1).indices
        selected = boxes_unact.gather(1, indices[..., None].expand(-1, -1, 4)).detach()
        position = self.get_proposal_pos_embed(selected, num_pos_feats=self.embed_dims // 2)
        query_pos = self.pos_trans_norm(self.pos_trans_fc(position))[..., : self.embed_dims]
        decoder_inputs = dict(
            query=self.query_embedding.weight[:num_queries].expand(memory.shape[0], -1, -1),
            query_pos=query_pos,
            memory=memory,
            reference_points=selected.sigmoid(),
            self_attn_mask=self._self_attn_mask(num_queries, memory.device),
        )
        head_inputs = dict(enc_outputs_class=classes, enc_outputs_coord=boxes_unact.sigmoid()) if self.training else {}
        return decoder_inputs, head_inputs

    def _self_attn_mask(self, num_queries: int, device: torch.device) -> Optional[Tensor]:
        """True where the query of a row must not see the query of a column, that is one of the other group."""
        if num_queries <= self.num_queries:
            return None
        is_one2many = torch.arange(num_queries, device=device) >= self.num_queries
        return is_one2many[:, None] != is_one2many

    def forward_decoder(
        self,
        query: Tensor,
        query_pos: Tensor,
        memory: Tensor,
        memory_mask: Optional[Tensor],
        reference_points: Tensor,
        self_attn_mask: Optional[Tensor],
        **kwargs,
    ) -> Dict:
        """Decode; arguments and outputs are the host's, which has no way for ``self_attn_mask``."""
        hidden_states, references = self.decoder(
            query=query,
            value=memory,
            query_pos=query_pos,
            key_padding_mask=memory_mask,
            reference_points=reference_points,
            self_attn_mask=self_attn_mask,
            reg_branches=self.bbox_head.reg_branches,
            **kwargs,
        )
        return dict(hidden_states=hidden_states, references=[reference_points, *references])
