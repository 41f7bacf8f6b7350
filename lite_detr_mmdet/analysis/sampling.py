"""Where a deformable attention samples and how much each sample weighs, worked out beside the operator."""

from typing import NamedTuple, Tuple

import torch
from mmcv.ops import MultiScaleDeformableAttention
from torch import Tensor, nn

from ..acceleration.overlay import host_class
from ..models.layers import FusedMultiScaleDeformableAttention, KeyAwareDeformableAttention
from ..models.layers.attention_call import AttentionCall, key_aware_inputs, sampling_offsets
from ..ops.reference import compare, get_all_sampling_points, sample

KNOWN = (MultiScaleDeformableAttention, FusedMultiScaleDeformableAttention, KeyAwareDeformableAttention)
CHUNK = 2048  # queries at a time: the sampled keys of all would take hundreds of megabytes


class Samples(NamedTuple):
    """The samples of some queries.

    Attributes:
        locations (Tensor): (x, y), normalised to [0, 1] over the padded map,
            (bs, num_queries, num_heads, num_levels, num_points, 2).
        weights (Tensor): (bs, num_queries, num_heads, num_levels, num_points); the sum over levels and points is 1.
    """

    locations: Tensor
    weights: Tensor


def check_attention(name: str, module: nn.Module) -> None:
    """Raise a ValueError if a module is not one whose weights are known here."""
    if host_class(module) not in KNOWN:
        raise ValueError(
            f'{name} must be one of {", ".join(known.__name__ for known in KNOWN)}, got {type(module).__name__}'
        )


def locate(reference_points: Tensor, offsets: Tensor, spatial_shapes: Tensor) -> Tensor:
    """Normalised sampling locations, (bs, num_queries, num_heads, num_levels, num_points, 2).

    Args:
        reference_points (Tensor): (bs, num_queries, num_levels, 2 or 4), normalised points or boxes.
        offsets (Tensor): (bs, num_queries, num_heads, num_levels or 1, num_points, 2), in pixels of the level for
            points, in half boxes shared out over the points for boxes.
        spatial_shapes (Tensor): (H_l, W_l) of each level, (num_levels, 2).
    """
    reference = reference_points[:, :, None, :, None]
    if reference.shape[-1] == 4:
        scale = reference[..., 2:] * (0.5 / offsets.shape[4])
    else:
        scale = 1 / spatial_shapes.flip(-1).to(offsets)[None, None, None, :, None]
    return reference[..., :2] + offsets * scale


@torch.no_grad()
def compute_samples(module: MultiScaleDeformableAttention, call: AttentionCall) -> Samples:
    """Locations and weights of all queries of a call, in float32."""
    call = AttentionCall(*(item.float() if _is_float(item) else item for item in call))
    pieces = [
        _compute(module, call.of_queries(slice(start, start + CHUNK)))
        for start in range(0, max(1, call.query.shape[1]), CHUNK)
    ]
    return Samples(*(torch.cat(items, dim=1) for items in zip(*pieces)))


def _is_float(item: object) -> bool:
    return isinstance(item, Tensor) and item.is_floating_point()


def _compute(module: MultiScaleDeformableAttention, call: AttentionCall) -> Tuple[Tensor, Tensor]:
    bs, num_queries, _ = call.query.shape
    shape = (bs, num_queries, module.num_heads, module.num_levels, module.num_points)
    if not isinstance(module, KeyAwareDeformableAttention):
        weights = module.attention_weights(call.query).view(*shape).flatten(3).softmax(-1).view(shape)
        return locate(call.reference_points, sampling_offsets(module, call), call.spatial_shapes), weights
    query, key, offsets = key_aware_inputs(module, call)
    points, shapes = get_all_sampling_points(call.spatial_shapes, call.reference_points, offsets, torch.float32)
    weights = compare(query, sample(key, points, shapes))  # (bs * num_heads, 1, num_queries, num_samples)
    weights = weights.view(bs, module.num_heads, num_queries, -1).transpose(1, 2).reshape(shape)
    return locate(call.reference_points, offsets, call.spatial_shapes), weights
