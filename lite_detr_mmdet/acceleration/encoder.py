"""Overlays of encoder layers and encoders."""

from typing import Any, Dict, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.layers.lite_encoder_layer import FFNPart, TokenParts
from .attention import FastDeformableAttention
from .linears import blocks, ffn_rows, is_plain_ffn, packed_linear
from .onednn import linear_add
from .overlay import Overlay, ShapeCache, applies, tensor_bytes
from .scratch import shared_scratch


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
    parts: Sequence[FFNPart],
    query: Tensor,
    query_pos: Optional[Tensor],
    value: Tensor,
    key_padding_mask: Optional[Tensor],
    reference_points: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    output: Optional[Tensor] = None,
    **kwargs,
) -> Tensor:
    """An encoder layer: attention for all queries, then everything after it in blocks that stay in the cache.

    Args:
        layer (nn.Module): The layer.
        parts (sequence[FFNPart]): Which queries go through which feed-forward network and norm.
        query, query_pos, value, key_padding_mask, reference_points, spatial_shapes, level_start_index: As of the
            layer.
        output (Tensor, optional): Where to write, shape of ``query``. It may be ``query`` itself, or a part of
            ``value``, both of which have been read by then. Defaults to None, new memory.

    Returns:
        Tensor: Updated queries, (bs, num_queries, dim).
    """
    attention, norm, dtype = layer.self_attn, layer.norms[0], layer.compute_dtype
    sampled = attention.sample(
        query, query_pos, value, key_padding_mask, reference_points, spatial_shapes, level_start_index
    )
    projection = packed_linear(attention.output_proj, dtype)
    if output is None:
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

    def forward(self, query: Tensor, query_pos: Tensor, key_padding_mask: Optional[Tensor], **kwargs) -> Tensor:
        if not applies(self, query):
            return super().forward(query=query, query_pos=query_pos, key_padding_mask=key_padding_mask, **kwargs)
        parts = [FFNPart(slice(None), self.ffn, self.norms[1])]
        return run_layer(self, parts, query, query_pos, query, key_padding_mask, **kwargs)


class FastLiteEncoderLayer(Overlay):
    """``LiteEncoderLayer``, in blocks of tokens."""

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        value: Tensor,
        key_padding_mask: Optional[Tensor],
        parts: Optional[TokenParts] = None,
        output: Optional[Tensor] = None,
        **kwargs,
    ) -> Tensor:
        if output is None and not applies(self, query):
            return super().forward(query, query_pos, value, key_padding_mask, parts=parts, **kwargs)
        return run_layer(
            self, self.ffn_parts(parts), query, query_pos, value, key_padding_mask, output=output, **kwargs
        )


class FastEncoder(Overlay):
    """An encoder whose layers share memory and which caches the reference points for the last shapes."""

    def forward(self, *args, **kwargs) -> Tensor:
        with shared_scratch():
            return super().forward(*args, **kwargs)

    def get_encoder_reference_points(self, spatial_shapes, valid_ratios: Tensor, device) -> Tensor:
        host = super().get_encoder_reference_points
        if not applies(self, valid_ratios):
            return host(spatial_shapes, valid_ratios, device)
        shapes = spatial_shapes.tolist() if isinstance(spatial_shapes, Tensor) else spatial_shapes
        key = tuple(map(tuple, shapes)), tuple(valid_ratios.flatten().tolist()), valid_ratios.dtype
        cache = self.__dict__.setdefault('reference_points_cache', ShapeCache())
        return cache.get(key, lambda: host(spatial_shapes, valid_ratios, device), lambda x: tensor_bytes([x]))


class FastLiteEncoder(FastEncoder):
    """``LiteEncoder``: layers write their tokens where they belong."""

    def apply_layer(self, index: int, part: slice, inputs: Dict[str, Any], in_place: bool) -> Tensor:
        layer, value = self.layers[index], inputs['value']
        if not applies(self, value) or not isinstance(layer, FastLiteEncoderLayer):
            return super().apply_layer(index, part, inputs, in_place)
        tokens = value if in_place else value.clone()
        layer(**inputs, output=tokens[:, part])
        return tokens


class FastDecoder(Overlay):
    """A decoder whose layers share memory."""

    def forward(self, *args, **kwargs):
        with shared_scratch():
            return super().forward(*args, **kwargs)
