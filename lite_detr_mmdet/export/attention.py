"""Deformable attention modules that can be exported."""

from typing import Optional

import torch
from mmcv.ops import MultiScaleDeformableAttention
from torch import Tensor, nn

from ..models.layers import FusedMultiScaleDeformableAttention, KeyAwareDeformableAttention
from ..models.layers.attention_inputs import attention_inputs
from .sampling import LevelShapes, attend

ATTENTION_FORMS = ('grid', 'gather', 'op')
# Subclasses of others may compute something else.
EXPORTABLE = (MultiScaleDeformableAttention, FusedMultiScaleDeformableAttention, KeyAwareDeformableAttention)


class ExportAttention(nn.Module):
    """Replaces a deformable attention: same weights, but level sizes as Python numbers or symbols.

    Args:
        source (MultiScaleDeformableAttention): One of ``EXPORTABLE``.
        form (str): One of ``ATTENTION_FORMS``.

    Raises:
        ValueError: If the module is of another class.
    """

    def __init__(self, source: nn.Module, form: str) -> None:
        super().__init__()
        if type(source) not in EXPORTABLE:
            names = ', '.join(kind.__name__ for kind in EXPORTABLE)
            raise ValueError(f'attention must be one of {names} to be exported, got {type(source).__name__}')
        self.form = form
        self.num_heads = source.num_heads
        self.num_points = source.num_points
        self.batch_first = source.batch_first
        self.value_proj = source.value_proj
        self.sampling_offsets = source.sampling_offsets
        self.output_proj = source.output_proj
        self.attention_weights = source.attention_weights
        self.query_proj = getattr(source, 'query_proj', None)
        self.key_proj = getattr(source, 'key_proj', None)

    def forward(
        self,
        query: Tensor,
        key: Optional[Tensor] = None,
        value: Optional[Tensor] = None,
        identity: Optional[Tensor] = None,
        query_pos: Optional[Tensor] = None,
        key_padding_mask: Optional[Tensor] = None,
        reference_points: Optional[Tensor] = None,
        spatial_shapes: Optional[LevelShapes] = None,
        **kwargs,
    ) -> Tensor:
        """See :class:`KeyAwareDeformableAttention`, but for ``spatial_shapes``.

        Args:
            spatial_shapes (sequence[tuple[int, int]]): (H_l, W_l) of each level.
        """
        query, value, identity = attention_inputs(query, value, identity, query_pos, self.batch_first)
        inputs = dict(
            value=self._project(self.value_proj, value, key_padding_mask),
            reference_points=reference_points,
            sampling_offsets=self.sampling_offsets(query).unflatten(-1, (self.num_heads, -1, self.num_points, 2)),
        )
        if self.query_proj is None:
            inputs['logits'] = self.attention_weights(query).unflatten(-1, (self.num_heads, -1))
        else:
            inputs['query'] = self.query_proj(query).unflatten(-1, (self.num_heads, -1))
            if self.key_proj is not None:
                inputs['key'] = self._project(self.key_proj, value, key_padding_mask)
        if self.form == 'op':
            output = attend_by_operator(level_shapes=spatial_shapes, **inputs)
        else:
            output = attend(self.form, level_shapes=spatial_shapes, **inputs)
        output = self.output_proj(output)
        if not self.batch_first:
            output = output.transpose(0, 1)
        return output + identity

    def _project(self, layer: nn.Linear, value: Tensor, key_padding_mask: Optional[Tensor]) -> Tensor:
        projected = layer(value)
        if key_padding_mask is not None:
            projected = projected.masked_fill(key_padding_mask[..., None], 0.0)
        return projected.unflatten(-1, (self.num_heads, -1))


def attend_by_operator(
    value: Tensor,
    level_shapes: LevelShapes,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    query: Optional[Tensor] = None,
    key: Optional[Tensor] = None,
    logits: Optional[Tensor] = None,
) -> Tensor:
    """Deformable attention by the compiled operator; arguments and result as in :func:`attend`."""
    shapes = torch.stack(
        [torch.scalar_tensor(number, dtype=torch.int64) for shape in level_shapes for number in shape]
    )
    shapes = shapes.view(-1, 2)
    sizes = shapes[:, 0] * shapes[:, 1]
    starts = sizes.cumsum(0) - sizes
    reference_points = reference_points.expand(value.shape[0], -1, -1, -1)
    if query is not None:
        return torch.ops.lite_detr.key_aware_deform_attn(
            query, value, shapes, starts, reference_points, sampling_offsets, key
        )[0]
    num_levels, num_points = len(level_shapes), sampling_offsets.shape[-2]
    weights = logits.softmax(-1).unflatten(-1, (num_levels, num_points))
    return torch.ops.lite_detr.multi_scale_deform_attn(
        value, shapes, starts, reference_points, sampling_offsets, weights
    )


def replace_attention(model: nn.Module, form: str) -> None:
    """Replace every deformable attention of a model by :class:`ExportAttention`.

    Raises:
        ValueError: If the form is unknown or a module cannot be exported.
    """
    if form not in ATTENTION_FORMS:
        raise ValueError(f'attention must be one of {", ".join(map(repr, ATTENTION_FORMS))}, got {form!r}')
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, MultiScaleDeformableAttention):
                setattr(module, name, ExportAttention(child, form))
