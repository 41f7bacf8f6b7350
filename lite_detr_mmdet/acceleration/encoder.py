"""Overlays of encoder layers and encoders."""

from typing import List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import FastDeformableAttention
from .linears import blocks, ffn_rows, is_plain_ffn, packed_linear
from .onednn import linear_add
from .overlay import Overlay, ShapeCache, applies, tensor_bytes

Part = Tuple[slice, nn.Module, nn.Module]  # tokens, their feed-forward network and the norm after it


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def is_plain_layer(layer: nn.Module) -> bool:
    """Whether an encoder layer's attention has an overlay and the rest is made of plain networks and layer norms."""
    ffns = [getattr(layer, name) for name in ('ffn', 'low_level_ffn') if hasattr(layer, name)]
    norms = [*layer.norms, *([layer.low_level_norm] if hasattr(layer, 'low_level_norm') else [])]
    return (
        isinstance(layer.self_attn, FastDeformableAttention)
        and layer.self_attn.batch_first
        and all(map(is_plain_ffn, ffns))
        and all(type(norm) is nn.LayerNorm for norm in norms)
    )


def run_layer(
    layer: nn.Module,
    parts: Sequence[Part],
    query: Tensor,
    query_pos: Optional[Tensor],
    value: Tensor,
    key_padding_mask: Optional[Tensor],
    reference_points: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
) -> Tensor:
    """An encoder layer: attention for all queries, then all that follows in blocks that stay in the cache.

    Returns:
        Tensor: Updated queries, (bs, num_queries, dim).
    """
    attention, norm, dtype = layer.self_attn, layer.norms[0], layer.compute_dtype
    with_pos = query if query_pos is None else query + query_pos
    sampled = attention.sample(with_pos, value, key_padding_mask, reference_points, spatial_shapes, level_start_index)
    del with_pos
    projection = packed_linear(attention.output_proj, dtype)
    output = torch.empty_like(query)
    for image in range(len(query)):
        for part, ffn, last_norm in parts:
            first, last, _ = part.indices(query.shape[1])
            for start, stop in blocks(last - first, ffn.feedforward_channels + 2 * query.shape[2]):
                rows = slice(first + start, first + stop)
                x = _norm(linear_add(sampled[image, rows], projection, query[image, rows]), norm)
                output[image, rows] = _norm(ffn_rows(ffn, x, x, dtype), last_norm)
    return output


class FastEncoderLayer(Overlay):
    """mmdet's ``DeformableDetrTransformerEncoderLayer``, in blocks of tokens."""

    def forward(
        self, query: Tensor, query_pos: Optional[Tensor], key_padding_mask: Optional[Tensor], **kwargs
    ) -> Tensor:
        if not applies(self, query):
            return super().forward(query=query, query_pos=query_pos, key_padding_mask=key_padding_mask, **kwargs)
        return run_layer(
            self,
            [(slice(None), self.ffn, self.norms[1])],
            query,
            query_pos,
            query,
            key_padding_mask,
            kwargs['reference_points'],
            kwargs['spatial_shapes'],
            kwargs['level_start_index'],
        )


class FastLiteEncoderLayer(Overlay):
    """``LiteEncoderLayer``, in blocks of tokens."""

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        value: Tensor,
        key_padding_mask: Optional[Tensor],
        parts=None,
        **kwargs,
    ) -> Tensor:
        if not applies(self, query):
            return super().forward(query, query_pos, value, key_padding_mask, parts=parts, **kwargs)
        return run_layer(
            self,
            self._parts(parts),
            query,
            query_pos,
            value,
            key_padding_mask,
            kwargs['reference_points'],
            kwargs['spatial_shapes'],
            kwargs['level_start_index'],
        )

    def _parts(self, parts) -> List[Part]:
        if self.low_level_ffn_channels is None:
            return [(slice(None), self.ffn, self.norms[1])]
        if not self.updates_high_level:
            return [(slice(None), self.low_level_ffn, self.low_level_norm)]
        low_level = (parts.low, self.low_level_ffn, self.low_level_norm)
        return [low_level, (parts.high, self.ffn, self.norms[1])]


class FastEncoder(Overlay):
    """An encoder that keeps the reference points of the last shapes."""

    def get_encoder_reference_points(self, spatial_shapes, valid_ratios: Tensor, device) -> Tensor:
        if self.training or torch.is_grad_enabled() or valid_ratios.device.type != 'cpu':
            return super().get_encoder_reference_points(spatial_shapes, valid_ratios, device)
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return super().get_encoder_reference_points(spatial_shapes, valid_ratios, device)
        shapes = spatial_shapes.tolist() if isinstance(spatial_shapes, Tensor) else spatial_shapes
        key = tuple(map(tuple, shapes)), tuple(valid_ratios.flatten().tolist()), valid_ratios.dtype
        cache = self.__dict__.setdefault('reference_points_cache', ShapeCache())
        host = super().get_encoder_reference_points
        return cache.get(key, lambda: host(spatial_shapes, valid_ratios, device), lambda x: tensor_bytes([x]))
