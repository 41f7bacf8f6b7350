"""Ordinary multi-scale deformable attention on this package's operator, and its exchange in a built model."""

from typing import Any, List, Optional

from mmcv.ops import MultiScaleDeformableAttention
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...ops import multi_scale_deform_attn
from ...ops.extension import has_kernel
from .attention_inputs import attention_inputs
from .split_heads import split_heads


@MODELS.register_module()
class FusedMultiScaleDeformableAttention(MultiScaleDeformableAttention):
    """mmcv's ``MultiScaleDeformableAttention`` with :func:`lite_detr_mmdet.ops.multi_scale_deform_attn` as its core.

    Same arguments, parameters, state dict and results. On a CPU, where mmcv samples with ``grid_sample``, it is many
    times as fast; it also knows bfloat16, ``torch.compile`` and ``torch.export``. On a device for which the operator
    is not compiled it runs as its parent does.

    In a config that takes a ``type``, it takes one line::

        self_attn_cfg=dict(type='FusedMultiScaleDeformableAttention')

    In a detector whose layers build mmcv's class whatever the config says, so does ``FusedAttentionHook``, or
    :func:`swap_attention` on the built model.

    Args:
        args: As in the parent.
        backend (str): Backend of :func:`lite_detr_mmdet.ops.multi_scale_deform_attn`. Defaults to 'auto'.
        kwargs: As in the parent.
    """

    backend = 'auto'  # of a module that was swapped

    def __init__(self, *args: Any, backend: str = 'auto', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.backend = backend

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
        **kwargs: Any,
    ) -> Tensor:
        """Attend to the sampled tokens and add the identity.

        Shapes are given for ``batch_first=True``; otherwise the first two dimensions are exchanged.

        Args:
            query (Tensor): (bs, num_queries, embed_dims).
            key (Tensor, optional): Ignored, as in the parent. Defaults to None.
            value (Tensor, optional): (bs, num_value, embed_dims). Defaults to None, the query.
            identity (Tensor, optional): Added to the output, shape of ``query``. Defaults to None, the query.
            query_pos (Tensor, optional): Added to the query, not to the identity. Defaults to None.
            key_padding_mask (Tensor, optional): True at padded tokens, (bs, num_value). Defaults to None.
            reference_points (Tensor): (bs, num_queries, num_levels, 2 or 4), normalised points or boxes.
            spatial_shapes (Tensor): (H_l, W_l) of each level, (num_levels, 2).
            level_start_index (Tensor): First token of each level, (num_levels, ).
            kwargs: Of the parent.

        Returns:
            Tensor: (bs, num_queries, embed_dims).
        """
        if self.backend == 'auto' and query.is_cuda and not has_kernel('cuda', 'multi_scale_deform_attn'):
            return super().forward(
                query,
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
        if identity is None:
            identity = kwargs.get('residual')  # its former name, which the parent still takes
        query, value, identity = attention_inputs(query, value, identity, query_pos, self.batch_first)
        bs, num_queries, _ = query.shape
        samples = (bs, num_queries, self.num_heads, self.num_levels, self.num_points)
        output = multi_scale_deform_attn(
            value=split_heads(self.value_proj(value), self.num_heads, key_padding_mask),
            spatial_shapes=spatial_shapes,
            level_start_index=level_start_index,
            reference_points=reference_points,
            sampling_offsets=self.sampling_offsets(query).view(*samples, 2),
            attention_weights=self.attention_weights(query).view(*samples).flatten(3).softmax(-1).view(samples),
            backend=self.backend,
        )
        output = self.output_proj(output)
        if not self.batch_first:
            output = output.transpose(0, 1)
        return self.dropout(output) + identity


def swap_attention(model: nn.Module) -> List[str]:
    """Let every ``MultiScaleDeformableAttention`` of a model run on this package's operator, in place.

    Modules keep their parameters, buffers, hooks and names, so that checkpoints and optimizers stay valid; subclasses
    of mmcv's class, which may compute something else, are left alone.

    Args:
        model (nn.Module): Any model of mmdet, e.g. DINO, Deformable DETR, Grounding DINO or Mask2Former.

    Returns:
        list[str]: Names of the modules that were changed.
    """
    changed = []
    for name, module in model.named_modules():
        if type(module) is MultiScaleDeformableAttention:
            module.__class__ = FusedMultiScaleDeformableAttention
            changed.append(name)
    return changed


def restore_attention(model: nn.Module) -> List[str]:
    """Undo :func:`swap_attention`.

    Args:
        model (nn.Module): The model.

    Returns:
        list[str]: Names of the modules that were changed.
    """
    changed = []
    for name, module in model.named_modules():
        if type(module) is FusedMultiScaleDeformableAttention:
            module.__class__ = MultiScaleDeformableAttention
            changed.append(name)
    return changed
