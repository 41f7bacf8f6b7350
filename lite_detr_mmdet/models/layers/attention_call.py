"""What a deformable attention is called with, for those who watch one."""

import inspect
from typing import Any, NamedTuple, Optional, Tuple

from mmcv.ops import MultiScaleDeformableAttention
from torch import Tensor

from .attention_inputs import attention_inputs
from .key_aware_deformable_attention import KeyAwareDeformableAttention
from .split_heads import split_heads


class AttentionCall(NamedTuple):
    """Inputs of a deformable attention, the batch first.

    Attributes:
        query (Tensor): Queries with their positions, (bs, num_queries, embed_dims).
        value (Tensor): Tokens, (bs, num_value, embed_dims).
        reference_points (Tensor): (bs, num_queries, num_levels, 2 or 4), normalised to [0, 1] over the padded map.
        spatial_shapes (Tensor): (H_l, W_l) of each level, (num_levels, 2).
        key_padding_mask (Tensor, optional): True at padded tokens, (bs, num_value).
    """

    query: Tensor
    value: Tensor
    reference_points: Tensor
    spatial_shapes: Tensor
    key_padding_mask: Optional[Tensor]

    def of_queries(self, chosen: Any) -> 'AttentionCall':
        """The same for some of the queries: indices, or a slice."""
        return self._replace(query=self.query[:, chosen], reference_points=self.reference_points[:, chosen])


def read_attention_call(module: MultiScaleDeformableAttention, *args: Any, **kwargs: Any) -> AttentionCall:
    """The inputs of ``module.forward(*args, **kwargs)``."""
    given = inspect.signature(MultiScaleDeformableAttention.forward).bind(module, *args, **kwargs).arguments
    query, value, _ = attention_inputs(
        given['query'], given.get('value'), None, given.get('query_pos'), module.batch_first
    )
    return AttentionCall(
        query, value, given['reference_points'], given['spatial_shapes'], given.get('key_padding_mask')
    )


def sampling_offsets(module: MultiScaleDeformableAttention, call: AttentionCall) -> Tensor:
    """Offsets that a module predicts, (bs, num_queries, num_heads, num_levels or 1, num_points, 2)."""
    return module.sampling_offsets(call.query).unflatten(-1, (module.num_heads, -1, module.num_points, 2))


def key_aware_inputs(module: KeyAwareDeformableAttention, call: AttentionCall) -> Tuple[Tensor, Tensor, Tensor]:
    """What key-aware attention compares, and where.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Projected queries, (bs, num_queries, num_heads, head_dim); projected keys,
        (bs, num_value, num_heads, head_dim), zero where padded; offsets, as :func:`sampling_offsets`.
    """
    query = module.query_proj(call.query).unflatten(-1, (module.num_heads, -1))
    layer = module.value_proj if module.key_proj is None else module.key_proj
    key = split_heads(layer(call.value), module.num_heads, call.key_padding_mask)
    return query, key, sampling_offsets(module, call)
