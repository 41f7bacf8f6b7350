"""Forms of key-aware deformable attention to compare: each takes the arguments of the operator."""

import math
from typing import Callable, Dict, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from lite_detr_mmdet.ops import key_aware_deform_attn, multi_scale_deform_attn


def get_sampling_locations(arguments: Dict[str, Tensor]) -> Tensor:
    """Normalised locations (bs, num_queries, num_heads, num_levels, num_points, 2) of reference points."""
    normalizer = arguments['spatial_shapes'].flip(1).to(arguments['sampling_offsets'])
    offsets = arguments['sampling_offsets'] / normalizer[None, None, None, :, None]
    return arguments['reference_points'][:, :, None, :, None] + offsets


def sample_levels(tensor: Tensor, grids: Tensor, shapes: list) -> Tensor:
    """Samples of all levels, stacked: (bs * num_heads, head_dim, num_queries, num_levels * num_points)."""
    bs, _, num_heads, head_dim = tensor.shape
    levels = []
    for level, part in enumerate(tensor.split([height * width for height, width in shapes], dim=1)):
        maps = part.flatten(2).transpose(1, 2).reshape(bs * num_heads, head_dim, *shapes[level])
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        levels.append(F.grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False))
    return torch.stack(levels, dim=-2).flatten(-2)


def released(
    query: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Optional[Tensor] = None,
) -> Tensor:
    """What the released code computes: key and value are sampled one after the other even if they are the same."""
    bs, num_queries, num_heads, head_dim = query.shape
    arguments = dict(
        spatial_shapes=spatial_shapes, reference_points=reference_points, sampling_offsets=sampling_offsets
    )
    grids = (2 * get_sampling_locations(arguments) - 1).to(value.dtype)
    shapes = spatial_shapes.tolist()
    sampled_value = sample_levels(value, grids, shapes).permute(0, 2, 3, 1).flatten(0, 1)
    sampled_key = sample_levels(value if key is None else key, grids, shapes).permute(0, 2, 3, 1).flatten(0, 1)
    query = query.transpose(1, 2).flatten(0, 2).unsqueeze(1)
    attention_weights = (query @ sampled_key.transpose(1, 2) / math.sqrt(head_dim)).softmax(-1)
    output = (attention_weights @ sampled_value).view(bs, num_heads, num_queries, head_dim)
    return output.transpose(1, 2).flatten(2)


def sample_once(**arguments: Tensor) -> Tensor:
    """This package's plain PyTorch: one sampling for key and value."""
    return key_aware_deform_attn(**arguments, backend='reference')


def fused(**arguments: Tensor) -> Tensor:
    """This package's compiled operator."""
    return key_aware_deform_attn(**arguments, backend='fused')


def split_weights(query: Tensor, sampling_offsets: Tensor) -> Tensor:
    """Logits of attention weights, (bs, num_queries, num_heads, num_levels * num_points): a part of the queries."""
    num_levels, num_points = sampling_offsets.shape[3:5]
    return query[..., : num_levels * num_points]


class EarlierFunction(torch.autograd.Function):
    """The operator of an earlier commit, from the library that .dev_scripts/build_earlier_op.sh compiles."""

    @staticmethod
    def forward(ctx, *tensors: Tensor) -> Tensor:
        named = dict(zip(ARGUMENTS, tensors), key=None)
        output, logsumexp = torch.ops.lite_detr_base.key_aware_deform_attn(**named)
        ctx.save_for_backward(*tensors, logsumexp)
        return output

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple:
        *tensors, logsumexp = ctx.saved_tensors
        named = dict(zip(ARGUMENTS, tensors), key=None, grad_output=grad_output, logsumexp=logsumexp)
        operator = torch.ops.lite_detr_base.key_aware_deform_attn_backward
        names = [argument.name for argument in operator.default._schema.arguments]
        if 'reference_points_grad' in names:
            named['reference_points_grad'] = False
        grads = dict(zip([value.name for value in operator.default._schema.returns], operator(**named)))
        return grads['grad_query'], grads['grad_value'], None, None, None, grads['grad_sampling_offsets']


ARGUMENTS = (
    'query',
    'value',
    'spatial_shapes',
    'level_start_index',
    'reference_points',
    'sampling_offsets',
)


def earlier(**arguments: Tensor) -> Tensor:
    """The compiled operator of an earlier commit, see --earlier-library."""
    return EarlierFunction.apply(*[arguments[name] for name in ARGUMENTS])


def mmcv(
    query: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Optional[Tensor] = None,
) -> Tensor:
    """mmcv's multi-scale deformable attention with weights that are given: less work, there is no key.

    The weights are a part of the queries, so that the gradient reaches them.
    """
    arguments = dict(
        spatial_shapes=spatial_shapes, reference_points=reference_points, sampling_offsets=sampling_offsets
    )
    locations = get_sampling_locations(arguments)
    weights = split_weights(query, sampling_offsets).softmax(-1).unflatten(-1, sampling_offsets.shape[3:5])
    if not value.is_cuda:
        from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

        return multi_scale_deformable_attn_pytorch(value, spatial_shapes, locations.to(value.dtype), weights)
    # Its kernels know no bfloat16: what a user of bfloat16 has to do is to go over float32.
    dtype = torch.float32 if value.dtype == torch.bfloat16 else value.dtype
    step = math.gcd(len(value), 64)
    output = find_mmcv_function()(
        value.to(dtype), spatial_shapes, level_start_index, locations.to(dtype), weights.to(dtype), step
    )
    return output.to(value.dtype)


def fused_msda(
    query: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Optional[Tensor] = None,
) -> Tensor:
    """This package's ordinary multi-scale deformable attention, weights as for mmcv."""
    weights = split_weights(query, sampling_offsets).softmax(-1).unflatten(-1, sampling_offsets.shape[3:5])
    return multi_scale_deform_attn(
        value, spatial_shapes, level_start_index, reference_points, sampling_offsets, weights, backend='fused'
    )


def deformops(
    query: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    key: Optional[Tensor] = None,
) -> Tensor:
    """Multi-scale deformable attention of deformops 3 (PyPI, Python 3.12 and later), weights as for mmcv."""
    from deformops.registry import msda

    locations = get_sampling_locations(
        dict(spatial_shapes=spatial_shapes, reference_points=reference_points, sampling_offsets=sampling_offsets)
    )
    logits = split_weights(query, sampling_offsets)
    output = msda(value, spatial_shapes, level_start_index, locations.to(value.dtype), logits, method='softmax')
    return output.reshape(*query.shape[:2], -1)


class MMCVFunction(torch.autograd.Function):
    """Calls the two operators of mmcv that .dev_scripts/build_mmcv_op.py compiles alone."""

    @staticmethod
    def forward(ctx, value, spatial_shapes, level_start_index, locations, weights, step) -> Tensor:
        ctx.step = step
        ctx.save_for_backward(value, spatial_shapes, level_start_index, locations, weights)
        return torch.ops.mmcv_alone.forward(value, spatial_shapes, level_start_index, locations, weights, step)

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple:
        value, _, _, locations, weights = ctx.saved_tensors
        grads = [torch.zeros_like(tensor) for tensor in (value, locations, weights)]
        torch.ops.mmcv_alone.backward(*ctx.saved_tensors, grad_output.contiguous(), *grads, ctx.step)
        return grads[0], None, None, *grads[1:], None


def find_mmcv_function() -> Callable[..., Tensor]:
    """mmcv's operator, compiled alone where that library is loaded, else that of the installed mmcv."""
    if hasattr(torch.ops.mmcv_alone, 'forward'):
        return MMCVFunction.apply
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    return MultiScaleDeformableAttnFunction.apply


FORMS: Dict[str, Callable[..., Tensor]] = dict(
    fused=fused,
    released=released,
    sample_once=sample_once,
    fused_msda=fused_msda,
    mmcv=mmcv,
    deformops=deformops,
    earlier=earlier,
)
