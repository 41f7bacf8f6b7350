"""The functions of ``mmcv._ext`` that MMDetection's DETRs call, without compiled code of mmcv; on any device.

Names, arguments and results are those of mmcv's extension. ``mmcv.ops`` calls them, and so do ``batched_nms``, the
focal loss on GPUs and ``MultiScaleDeformableAttention`` on GPUs.
"""

from functools import cache
from typing import Callable, Optional, Tuple

import torch
from torch import Tensor

from ..ops import multi_scale_deform_attn

__all__ = [
    'get_compiler_version',
    'get_compiling_cuda_version',
    'ms_deform_attn_backward',
    'ms_deform_attn_forward',
    'nms',
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
]
# Pairs of boxes that are compared at once: as many as stay in the cache, on a GPU as many as fill it.
NMS_PAIRS = {False: 2**20, True: 2**24}


def get_compiler_version() -> str:
    """The compiler of mmcv's operators, for reports on the environment."""
    return 'none: operators are not compiled'


def get_compiling_cuda_version() -> str:
    """The CUDA version of mmcv's operators, for reports on the environment."""
    return 'none: operators are not compiled'


@cache
def find_torchvision_nms() -> Optional[Callable[[Tensor, Tensor, float], Tensor]]:
    """torchvision's ``nms``, or None where there is no torchvision that fits the installed torch."""
    try:
        from torchvision.ops import nms as torchvision_nms

        torchvision_nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception:  # one that is built for another torch raises RuntimeError and others
        return None
    return torchvision_nms


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Non-maximum suppression: a box goes if it overlaps a kept one of higher score by more than the threshold.

    Args:
        boxes (Tensor): (num_boxes, 4) as (x1, y1, x2, y2).
        scores (Tensor): (num_boxes, ).
        iou_threshold (float): Highest intersection over union that two kept boxes may have.
        offset (int): Width and height of a box are x2 - x1 + offset and y2 - y1 + offset: 0 or 1.

    Returns:
        Tensor: Indices of the kept boxes by falling score, (num_kept, ), int64.
    """
    if offset == 0:
        torchvision_nms = find_torchvision_nms()
        if torchvision_nms is not None:
            return torchvision_nms(boxes, scores, iou_threshold)
    return nms_in_pytorch(boxes, scores, iou_threshold, offset)


def nms_in_pytorch(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """:func:`nms` in plain PyTorch: overlaps are computed on the boxes' device, the choice is made on the host."""
    order = scores.sort(descending=True).indices  # as mmcv does, also for equal scores
    corners, left = boxes[order].t().contiguous(), order
    kept = [order[:0]]
    while left.numel():
        rows = max(1, NMS_PAIRS[boxes.is_cuda] // left.numel())
        overlaps = overlaps_more(corners[:, :rows], corners, iou_threshold, offset).cpu().numpy()
        gone = torch.zeros(left.numel(), dtype=torch.bool)
        flags, chosen = gone.numpy(), []
        for row, overlapped in enumerate(overlaps):
            if not flags[row]:
                chosen.append(row)
                flags |= overlapped
        kept.append(left[:rows][chosen])
        gone[:rows] = True
        remaining = (~gone).to(left.device)
        corners, left = corners[:, remaining], left[remaining]
    return torch.cat(kept)


def overlaps_more(boxes: Tensor, others: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Whether the intersection over union of pairs of boxes is above a threshold.

    Args:
        boxes (Tensor): (4, num_boxes), a coordinate in each row.
        others (Tensor): (4, num_others).
        iou_threshold (float): The threshold.
        offset (int): See :func:`nms`.

    Returns:
        Tensor: (num_boxes, num_others), bool. False for pairs without area.
    """
    own = boxes[:, :, None]
    own_area = (own[2] - own[0] + offset) * (own[3] - own[1] + offset)
    area = (others[2] - others[0] + offset) * (others[3] - others[1] + offset)
    width = torch.minimum(own[2], others[2]).sub_(torch.maximum(own[0], others[0])).add_(offset).clamp_(min=0)
    height = torch.minimum(own[3], others[3]).sub_(torch.maximum(own[1], others[1])).add_(offset).clamp_(min=0)
    intersection = width.mul_(height)
    return intersection / (own_area + area).sub_(intersection) > iou_threshold


def sigmoid_focal_loss(input: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """MMDetection's own focal loss in PyTorch for labels instead of one-hot vectors; see the two functions below."""
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    classes = torch.arange(input.shape[1], device=target.device)
    loss = py_sigmoid_focal_loss(input, target[:, None] == classes, gamma=gamma, alpha=alpha, reduction='none')
    if weight.numel() > 0:
        known = (target >= 0) & (target < len(weight))  # others are background, which has no weight
        loss = loss * torch.where(known, weight[target.clamp(0, len(weight) - 1)], 1)[:, None]
    return loss


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the focal loss of every class of every sample into ``output``.

    Args:
        input (Tensor): Logits, (num_samples, num_classes).
        target (Tensor): Class of each sample, (num_samples, ), int64; ``num_classes`` is background.
        weight (Tensor): Weight of each class, (num_classes, ), or empty.
        output (Tensor): (num_samples, num_classes), is written.
        gamma (float): Exponent of the focusing factor.
        alpha (float): Weight of the positive class.
    """
    with torch.no_grad():
        output.copy_(sigmoid_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of the focal loss by ``input`` into ``grad_input``; see the forward function."""
    with torch.enable_grad():
        leaf = input.detach().requires_grad_()
        loss = sigmoid_focal_loss(leaf, target, weight, gamma, alpha)
        grad_input.copy_(torch.autograd.grad(loss.sum(), leaf)[0])


def ms_deform_attn(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """This package's multi-scale deformable attention with mmcv's arguments: fused where it is compiled."""
    bs, num_queries, _, num_levels, num_points, _ = locations.shape
    # Offsets are in halves of the box, shared out over the points: these boxes make them locations.
    box = locations.new_tensor([0, 0, 2 * num_points, 2 * num_points]).expand(bs, num_queries, num_levels, 4)
    return multi_scale_deform_attn(value, shapes, starts, box, locations, weights)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention.

    Args:
        value (Tensor): (bs, num_value, num_heads, head_dim).
        value_spatial_shapes (Tensor): (H_l, W_l) of each level, (num_levels, 2).
        value_level_start_index (Tensor): Index of the first token of each level, (num_levels, ).
        sampling_locations (Tensor): (bs, num_queries, num_heads, num_levels, num_points, 2), normalised to [0, 1].
        attention_weights (Tensor): (bs, num_queries, num_heads, num_levels, num_points).
        im2col_step (int): Images that mmcv's operator takes at once; not used.

    Returns:
        Tensor: (bs, num_queries, num_heads * head_dim).
    """
    with torch.no_grad():
        return ms_deform_attn(
            value, value_spatial_shapes, value_level_start_index, sampling_locations, attention_weights
        )


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of :func:`ms_deform_attn_forward` into the three tensors ``grad_*``."""
    inputs = [tensor.detach().requires_grad_() for tensor in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = ms_deform_attn(inputs[0], value_spatial_shapes, value_level_start_index, *inputs[1:])
        gradients: Tuple[Tensor, ...] = torch.autograd.grad(output, inputs, grad_output)
    for target, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients):
        target.copy_(gradient)
