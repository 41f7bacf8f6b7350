"""One layer of the interleaved encoder."""

from typing import List, NamedTuple, Optional

import torch
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks.transformer import FFN
from mmdet.models.layers import DeformableDetrTransformerEncoderLayer
from mmdet.registry import MODELS
from mmengine.model import ModuleList
from torch import Tensor, nn


class TokenParts(NamedTuple):
    """Where the low-level and the high-level tokens are among the tokens of all levels."""

    low: slice
    high: slice


class FFNPart(NamedTuple):
    """Queries that go through one feed-forward network and the norm after it."""

    queries: slice
    ffn: nn.Module
    norm: nn.Module


@MODELS.register_module()
class LiteEncoderLayer(DeformableDetrTransformerEncoderLayer):
    """Encoder layer that can update a part of the tokens and treat the low-level ones lightly (Sec. 3.3 to 3.5).

    Args:
        self_attn_cfg (dict): Config of the attention; ``type`` is a registered multi-scale deformable attention,
            by default mmcv's ``MultiScaleDeformableAttention``.
        ffn_cfg (dict): Config of the feed-forward network of the high-level tokens.
        norm_cfg (dict): Config of the norms. Defaults to ``dict(type='LN')``.
        low_level_ffn_channels (int, optional): Hidden channels of the small feed-forward network of the low-level
            tokens; None for a layer without low-level queries. Defaults to None.
        updates_high_level (bool): Whether high-level tokens are among the queries. Defaults to True.
    """

    def __init__(
        self, *args, low_level_ffn_channels: Optional[int] = None, updates_high_level: bool = True, **kwargs
    ) -> None:
        self.low_level_ffn_channels = low_level_ffn_channels
        self.updates_high_level = updates_high_level
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        """Build attention, feed-forward networks and norms; names are those of the parent."""
        self.self_attn = MODELS.build({'type': 'MultiScaleDeformableAttention', **self.self_attn_cfg})
        self.embed_dims = self.self_attn.embed_dims
        num_norms = 1
        if self.updates_high_level:
            self.ffn = FFN(**self.ffn_cfg)
            num_norms = 2
        self.norms = ModuleList([build_norm_layer(self.norm_cfg, self.embed_dims)[1] for _ in range(num_norms)])
        if self.low_level_ffn_channels is not None:
            self.low_level_ffn = FFN(**{**self.ffn_cfg, 'feedforward_channels': self.low_level_ffn_channels})
            self.low_level_norm = build_norm_layer(self.norm_cfg, self.embed_dims)[1]
        self._in_place_activations = [module for module in self.modules() if getattr(module, 'inplace', False)]
        self.train(self.training)

    def train(self, mode: bool = True) -> 'LiteEncoderLayer':
        """Switch to training or evaluation. Activations work in place only in evaluation.

        In training they follow a linear layer whose output is a view, and for an operation in place on a view autograd
        copies the whole gradient several times.
        """
        super().train(mode)
        for activation in self._in_place_activations:
            activation.inplace = not mode
        return self

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        value: Tensor,
        key_padding_mask: Optional[Tensor],
        parts: Optional[TokenParts] = None,
        **kwargs,
    ) -> Tensor:
        """Update the queries.

        Args:
            query (Tensor): Tokens to update, (bs, num_queries, dim).
            query_pos (Tensor): Positional and level embedding of the queries, (bs, num_queries, dim).
            value (Tensor): All tokens, (bs, num_value, dim).
            key_padding_mask (Tensor, optional): True at padded tokens, (bs, num_value).
            parts (TokenParts, optional): Where low-level and high-level tokens are among the queries. Needed by a
                layer that updates both. Defaults to None.
            kwargs: ``reference_points``, ``spatial_shapes`` and ``level_start_index`` for the attention.

        Returns:
            Tensor: Updated tokens, (bs, num_queries, dim).
        """
        query = self.self_attn(
            query=query,
            key=value,
            value=value,
            query_pos=query_pos,
            key_padding_mask=key_padding_mask,
            **kwargs,
        )
        query = self.norms[0](query)
        ffn_parts = self.ffn_parts(parts)
        if len(ffn_parts) == 1:
            return ffn_parts[0].norm(ffn_parts[0].ffn(query))
        return torch.cat([part.norm(part.ffn(query[:, part.queries])) for part in ffn_parts], dim=1)

    def ffn_parts(self, parts: Optional[TokenParts]) -> List[FFNPart]:
        """Which queries go through which feed-forward network, in the order of the queries (Sec. 3.5).

        Args:
            parts (TokenParts, optional): Where low-level and high-level tokens are among the queries. Needed by a
                layer that updates both.
        """
        if self.low_level_ffn_channels is None:
            return [FFNPart(slice(None), self.ffn, self.norms[1])]
        if not self.updates_high_level:
            return [FFNPart(slice(None), self.low_level_ffn, self.low_level_norm)]
        low = FFNPart(parts.low, self.low_level_ffn, self.low_level_norm)
        high = FFNPart(parts.high, self.ffn, self.norms[1])
        return [low, high] if parts.low.start == 0 else [high, low]


def replace_tokens(tokens: Tensor, part: slice, updated: Tensor, in_place: bool) -> Tensor:
    """Put updated tokens in the place of their former state.

    Args:
        tokens (Tensor): All tokens, (bs, num_value, dim).
        part (slice): Which of them were updated.
        updated (Tensor): These tokens, (bs, num_updated, dim).
        in_place (bool): Whether ``tokens`` may be overwritten where no gradient is wanted. Most layers update a
            quarter of the tokens or less: the others then need not be copied.

    Returns:
        Tensor: All tokens, (bs, num_value, dim).
    """
    if updated.shape[1] == tokens.shape[1]:
        return updated
    if in_place and not torch.is_grad_enabled():
        tokens[:, part] = updated
        return tokens
    return torch.cat([tokens[:, : part.start], updated, tokens[:, part.stop :]], dim=1)
