"""Overlays of attention."""

from typing import List, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import key_aware_deform_attn, multi_scale_deform_attn
from .linears import blocks, packed_linear
from .onednn import PackedLinear, block_rows, linear, linear_add, pack_linear
from .overlay import Derived, Overlay, applies
from .scratch import scratch


def project_heads(
    name: str, layer: nn.Linear, value: Tensor, mask: Optional[Tensor], num_heads: int, dtype: torch.dtype
) -> Tensor:
    """Project tokens and lay them out with heads outside tokens, as the operator reads them fastest.

    Args:
        name (str): Name of the output among the memory that layers share.
        layer (nn.Linear): The projection.
        value (Tensor): Tokens, (bs, num_value, dim).
        mask (Tensor, optional): True at padded tokens, which become zero, (bs, num_value).
        num_heads (int): Number of heads.
        dtype (torch.dtype): Dtype to compute in.

    Returns:
        Tensor: (bs, num_value, num_heads, head_dim), contiguous as (bs, num_heads, num_value, head_dim).
    """
    packed = packed_linear(layer, dtype)
    bs, num_value, dim = value.shape
    channels = layer.out_features
    shape = (bs, num_heads, num_value, channels // num_heads)
    output = scratch(f'projected {name}', shape, dtype)
    for image in range(bs):
        for start, stop in blocks(num_value, dim + channels):
            rows = linear(value[image, start:stop], packed)
            if mask is not None:
                rows = rows.masked_fill_(mask[image, start:stop, None], 0.0)
            output[image, :, start:stop] = rows.view(stop - start, num_heads, -1).transpose(0, 1)
    return output.transpose(1, 2)


def project_queries(
    layers: Sequence[nn.Linear], query: Tensor, query_pos: Optional[Tensor], dtype: torch.dtype
) -> List[Tensor]:
    """Add positions to queries and project them by each of some layers, in blocks that stay in the cache.

    Args:
        layers (sequence[nn.Linear]): The projections.
        query (Tensor): (bs, num_queries, dim).
        query_pos (Tensor, optional): (1 or bs, num_queries, dim).
        dtype (torch.dtype): Dtype to compute in.

    Returns:
        list[Tensor]: (bs, num_queries, out_channels) of each layer.
    """
    packed = [packed_linear(layer, dtype) for layer in layers]
    bs, num_queries, dim = query.shape
    shapes = [(bs, num_queries, layer.out_features) for layer in layers]
    if num_queries <= block_rows(2 * dim):
        query = query if query_pos is None else query + query_pos
        return [linear(query, item) for item in packed]
    outputs = [scratch(f'projected query {index}', shape, dtype) for index, shape in enumerate(shapes)]
    for image in range(bs):
        positions = None if query_pos is None else query_pos[image if len(query_pos) > 1 else 0]
        for start, stop in blocks(num_queries, 2 * dim):
            rows = query[image, start:stop]
            rows = (rows if positions is None else rows + positions[start:stop]).to(dtype)
            for output, item in zip(outputs, packed):
                output[image, start:stop] = linear(rows, item)
    return outputs


class FastDeformableAttention(Overlay):
    """Base of the overlays of deformable attention; a subclass says how to ``sample``."""

    def sample(
        self,
        query: Tensor,
        query_pos: Optional[Tensor],
        value: Tensor,
        key_padding_mask: Optional[Tensor],
        reference_points: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
    ) -> Tensor:
        """What the heads gather, before the output projection.

        Args:
            query (Tensor): Queries, (bs, num_queries, embed_dims).
            query_pos (Tensor, optional): Their positions, shape of ``query``.
            value (Tensor): (bs, num_value, embed_dims).
            key_padding_mask (Tensor, optional): True at padded tokens, (bs, num_value).
            reference_points (Tensor): (bs, num_queries, num_levels, 2 or 4).
            spatial_shapes (Tensor): (num_levels, 2).
            level_start_index (Tensor): (num_levels, ).

        Returns:
            Tensor: (bs, num_queries, channels), in the dtype that is computed in.
        """
        raise NotImplementedError

    def forward(
        self,
        query: Tensor,
        key: Optional[Tensor] = None,
        value: Optional[Tensor] = None,
        identity: Optional[Tensor] = None,
        query_pos: Optional[Tensor] = None,
        key_padding_mask: Optional[Tensor] = None,
        reference_points: Optional[Tensor] = None,
        spatial_shapes: Optional[Tensor] = None,
        level_start_index: Optional[Tensor] = None,
        **kwargs,
    ) -> Tensor:
        if not self.batch_first or not applies(self, query) or reference_points.shape[-1] not in (2, 4):
            return super().forward(
                query=query,
                key=key,
                value=value,
                identity=identity,
                query_pos=query_pos,
                key_padding_mask=key_padding_mask,
                reference_points=reference_points,
                spatial_shapes=spatial_shapes,
                level_start_index=level_start_index,
                **kwargs,
            )
        value = query if value is None else value
        identity = kwargs.get('residual') if identity is None else identity  # its former name
        identity = query if identity is None else identity
        sampled = self.sample(
            query, query_pos, value, key_padding_mask, reference_points, spatial_shapes, level_start_index
        )
        return linear_add(sampled, packed_linear(self.output_proj, self.compute_dtype), identity)


class FastKeyAwareAttention(FastDeformableAttention):
    """``KeyAwareDeformableAttention`` with packed projections."""

    def sample(self, query, query_pos, value, key_padding_mask, reference_points, spatial_shapes, level_start_index):
        dtype, num_heads = self.compute_dtype, self.num_heads
        bs, num_queries, _ = query.shape
        projected, offsets = project_queries([self.query_proj, self.sampling_offsets], query, query_pos, dtype)
        key = None
        if self.key_proj is not None:
            key = project_heads('key', self.key_proj, value, key_padding_mask, num_heads, dtype)
        return key_aware_deform_attn(
            query=projected.view(bs, num_queries, num_heads, -1),
            value=project_heads('value', self.value_proj, value, key_padding_mask, num_heads, dtype),
            spatial_shapes=spatial_shapes,
            level_start_index=level_start_index,
            reference_points=reference_points,
            sampling_offsets=offsets.view(bs, num_queries, num_heads, -1, self.num_points, 2),
            key=key,
            backend=self.backend,
        )


class FastMultiScaleAttention(FastDeformableAttention):
    """``FusedMultiScaleDeformableAttention`` with packed projections."""

    def sample(self, query, query_pos, value, key_padding_mask, reference_points, spatial_shapes, level_start_index):
        dtype, num_heads = self.compute_dtype, self.num_heads
        layers = [self.sampling_offsets, self.attention_weights]
        offsets, weights = project_queries(layers, query, query_pos, dtype)
        samples = (*query.shape[:2], num_heads, self.num_levels, self.num_points)
        return multi_scale_deform_attn(
            value=project_heads('value', self.value_proj, value, key_padding_mask, num_heads, dtype),
            spatial_shapes=spatial_shapes,
            level_start_index=level_start_index,
            reference_points=reference_points,
            sampling_offsets=offsets.view(*samples, 2),
            attention_weights=weights.view(*samples).flatten(3).softmax(-1).view(samples),
            backend=self.backend,
        )


def packed_in_projection(attention: nn.MultiheadAttention, part: slice, dtype: torch.dtype) -> PackedLinear:
    """A part of the input projection of torch's attention: queries and keys, or values."""
    derived = attention.__dict__.setdefault(f'packed_{part.start}_{part.stop}_{dtype}', Derived())
    weight, bias = attention.in_proj_weight, attention.in_proj_bias

    def make() -> PackedLinear:
        return pack_linear(weight[part], None if bias is None else bias[part], dtype)

    return derived.get((weight, bias), make)


def packed_out_projection(attention: nn.MultiheadAttention, dtype: torch.dtype) -> PackedLinear:
    """The output projection of torch's attention."""
    return packed_linear(attention.out_proj, dtype)


def is_plain_multihead(module: nn.Module) -> bool:
    """Whether mmcv's ``MultiheadAttention`` has one input projection and no extras."""
    attention = module.attn
    return (
        module.batch_first
        and attention._qkv_same_embed_dim
        and attention.bias_k is None
        and attention.bias_v is None
        and not attention.add_zero_attn
    )


class FastMultiheadAttention(Overlay):
    """mmcv's ``MultiheadAttention`` by torch's fused attention, without computing the unused attention weights."""

    def forward(
        self,
        query: Tensor,
        key: Optional[Tensor] = None,
        value: Optional[Tensor] = None,
        identity: Optional[Tensor] = None,
        query_pos: Optional[Tensor] = None,
        key_pos: Optional[Tensor] = None,
        attn_mask: Optional[Tensor] = None,
        key_padding_mask: Optional[Tensor] = None,
        **kwargs,
    ) -> Tensor:
        is_self = (key is None or key is query) and (value is None or value is query)
        plain_mask = attn_mask is None or (attn_mask.dtype == torch.bool and attn_mask.ndim == 2)
        same_pos = key_pos is None or key_pos is query_pos
        if not (applies(self, query) and is_self and same_pos and plain_mask and key_padding_mask is None):
            return super().forward(
                query, key, value, identity, query_pos, key_pos, attn_mask, key_padding_mask, **kwargs
            )
        dtype, dim, heads = self.compute_dtype, self.embed_dims, self.num_heads
        with_pos = query if query_pos is None else query + query_pos
        query_key = linear(with_pos, packed_in_projection(self.attn, slice(0, 2 * dim), dtype))
        values = linear(query, packed_in_projection(self.attn, slice(2 * dim, 3 * dim), dtype))
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (*query_key.chunk(2, -1), values))
        mask = None if attn_mask is None else ~attn_mask  # True: takes part
        output = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)
        return linear_add(output, packed_out_projection(self.attn, dtype), query if identity is None else identity)
