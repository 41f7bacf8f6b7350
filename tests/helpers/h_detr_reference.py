"""H-DETR after its encoder, from the formulas of the paper in plain PyTorch: what the models are tested against.

Everything is a function of ``weights``, the state dict of a detector. Nothing of mmcv or mmdet is used.
"""

import math
from typing import Dict, List, Optional

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

Weights = Dict[str, Tensor]
NUM_HEADS, NUM_POINTS = 8, 4
EPS = 1e-5


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x @ weights[f'{name}.weight'].T + weights[f'{name}.bias']


def norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + EPS).sqrt()
    return x * weights[f'{name}.weight'] + weights[f'{name}.bias']


def box_offset(weights: Weights, index: int, x: Tensor) -> Tensor:
    for layer in (0, 2):
        x = linear(weights, f'bbox_head.reg_branches.{index}.{layer}', x).relu()
    return linear(weights, f'bbox_head.reg_branches.{index}.4', x)


def logit(box: Tensor) -> Tensor:
    return box.clamp(EPS, 1).log() - (1 - box).clamp(EPS, 1).log()


def proposals(shapes: List[tuple], mask: Tensor) -> Tensor:
    """A box at each token, 0.05 * 2^level of the image wide and high, relative to the part that is not padding."""
    boxes, start = [], 0
    for level, (height, width) in enumerate(shapes):
        valid = ~mask[:, start : start + height * width].view(-1, height, width)
        start += height * width
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing='ij')
        for image in range(len(mask)):
            size = 0.05 * 2**level
            x_image, y_image = x / valid[image, 0].sum(), y / valid[image, :, 0].sum()
            boxes.append(torch.stack([x_image, y_image, *[torch.full_like(x, size)] * 2], -1).view(-1, 4))
    images = len(mask)
    return torch.stack([torch.cat(boxes[image::images]) for image in range(images)])


def sine_embedding(boxes: Tensor, num_feats: int) -> Tensor:
    """Sines and cosines in turn, for each of the four coordinates."""
    frequency = 10000 ** (-2 * torch.div(torch.arange(num_feats), 2, rounding_mode='floor') / num_feats)
    angle = boxes[..., None] * 2 * math.pi * frequency.to(boxes)
    angle = torch.where(torch.arange(num_feats) % 2 == 0, angle.sin(), angle.cos())
    return angle.flatten(-2)


def attention(weights: Weights, name: str, query: Tensor, position: Tensor, blocked: Optional[Tensor]) -> Tensor:
    """Multi-head self-attention of the queries."""
    w_q, w_k, w_v = weights[f'{name}.in_proj_weight'].chunk(3)
    b_q, b_k, b_v = weights[f'{name}.in_proj_bias'].chunk(3)
    x = query + position
    q, k, v = (y.unflatten(-1, (NUM_HEADS, -1)) for y in (x @ w_q.T + b_q, x @ w_k.T + b_k, query @ w_v.T + b_v))
    scores = torch.einsum('bihd,bjhd->bhij', q, k) / q.shape[-1] ** 0.5
    if blocked is not None:
        scores = scores.masked_fill(blocked, -math.inf)
    return linear(weights, f'{name}.out_proj', torch.einsum('bhij,bjhd->bihd', scores.softmax(-1), v).flatten(-2))


def deformable_attention(
    weights: Weights, name: str, query: Tensor, memory: Tensor, boxes: Tensor, shapes: List[tuple], mask: Tensor
) -> Tensor:
    """Multi-scale deformable attention around boxes that are relative to the unpadded part of the image."""
    bs, num_queries, dim = query.shape
    levels = len(shapes)
    value = linear(weights, f'{name}.value_proj', memory).masked_fill(mask[..., None], 0.0)
    offsets = linear(weights, f'{name}.sampling_offsets', query)
    offsets = offsets.view(bs, num_queries, NUM_HEADS, levels, NUM_POINTS, 2)
    share = linear(weights, f'{name}.attention_weights', query).view(bs, num_queries, NUM_HEADS, -1).softmax(-1)
    share = share.view(bs, num_queries, NUM_HEADS, levels, NUM_POINTS)
    output, start = 0, 0
    for level, (height, width) in enumerate(shapes):
        stop = start + height * width
        valid = ~mask[:, start:stop].view(bs, height, width)
        ratio = torch.stack([valid[:, 0].sum(-1) / width, valid[:, :, 0].sum(-1) / height], -1)
        box = boxes * torch.cat([ratio, ratio], -1)[:, None]
        location = box[:, :, None, None, :2] + offsets[:, :, :, level] / NUM_POINTS * box[:, :, None, None, 2:] / 2
        maps = value[:, start:stop].view(bs, height, width, NUM_HEADS, -1).permute(0, 3, 4, 1, 2).flatten(0, 1)
        grid = 2 * location.transpose(1, 2).flatten(0, 1) - 1
        sampled = F.grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
        sampled = sampled.view(bs, NUM_HEADS, -1, num_queries, NUM_POINTS)
        output = output + torch.einsum('bhdqp,bqhp->bqhd', sampled, share[:, :, :, level])
        start = stop
    return linear(weights, f'{name}.output_proj', output.reshape(bs, num_queries, dim))


def decode(
    weights: Weights,
    memory: Tensor,
    mask: Tensor,
    shapes: List[tuple],
    num_layers: int,
    num_one2one: int,
    num_one2many: int,
) -> Dict[str, Tensor]:
    """Logits and boxes of every layer, and of the encoder."""
    dim = memory.shape[-1]
    # Two stages: every token proposes a box; padded tokens and those near the border do not count.
    anchors = proposals(shapes, mask).to(memory)
    bad = mask | ((anchors <= 0.01) | (anchors >= 0.99)).any(-1)
    tokens = norm(weights, 'memory_trans_norm', linear(weights, 'memory_trans_fc', memory * ~bad[..., None]))
    enc_logits = linear(weights, f'bbox_head.cls_branches.{num_layers}', tokens)
    start = (anchors / (1 - anchors)).clamp(min=1e-9).log().masked_fill(bad[..., None], math.inf)
    enc_boxes = (box_offset(weights, num_layers, tokens) + start).sigmoid()
    # Mixed selection: the best tokens give the positions, a table the contents.
    num_queries = min(num_one2one + num_one2many, memory.shape[1])
    order = enc_logits[..., 0].argsort(1, descending=True)[:, :num_queries]
    box = torch.stack([boxes[best] for boxes, best in zip(enc_boxes, order)]).detach()
    position = norm(weights, 'pos_trans_norm', linear(weights, 'pos_trans_fc', sine_embedding(box, dim // 2)))
    position = position[..., :dim]
    x = weights['query_embedding.weight'][:num_queries].repeat(len(memory), 1, 1)
    # The two groups do not see each other.
    blocked = torch.zeros(num_queries, num_queries, dtype=torch.bool)
    blocked[:num_one2one, num_one2one:] = True
    blocked[num_one2one:, :num_one2one] = True

    logits, boxes = [], []
    undetached = box
    for index in range(num_layers):
        name = f'decoder.layers.{index}'
        x = norm(weights, f'{name}.norms.0', x + attention(weights, f'{name}.self_attn.attn', x, position, blocked))
        update = deformable_attention(weights, f'{name}.cross_attn', x + position, memory, box, shapes, mask)
        x = norm(weights, f'{name}.norms.1', x + update)
        hidden = linear(weights, f'{name}.ffn.layers.0.0', x).relu()
        x = norm(weights, f'{name}.norms.2', x + linear(weights, f'{name}.ffn.layers.1', hidden))
        logits.append(linear(weights, f'bbox_head.cls_branches.{index}', x))
        offset = box_offset(weights, index, x)
        # Look forward twice: the loss sees the box of the layer before with its gradient, the next layer without.
        boxes.append((logit(undetached) + offset).sigmoid())
        undetached = (logit(box) + offset).sigmoid()
        box = undetached.detach()
    return dict(logits=torch.stack(logits), boxes=torch.stack(boxes), enc_logits=enc_logits, enc_boxes=enc_boxes)


def corners(box: Tensor) -> Tensor:
    return torch.cat([box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2], -1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes (x1, y1, x2, y2) that broadcast."""
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    outer = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inner
    return inner / union - (outer - union) / outer


def set_losses(logits: Tensor, boxes: Tensor, targets: List[Dict[str, Tensor]]) -> Dict[str, Tensor]:
    """Losses of one layer after Hungarian matching.

    Args:
        logits (Tensor): (bs, num_queries, num_classes).
        boxes (Tensor): Normalised (cx, cy, w, h), (bs, num_queries, 4).
        targets (list[dict]): ``labels`` and ``boxes`` (normalised cx, cy, w, h) of each image, and its ``size``
            (width, height) in pixels.
    """
    normaliser = max(sum(len(target['labels']) for target in targets), 1)
    total = dict(loss_cls=0, loss_bbox=0, loss_iou=0)
    for image_logits, image_boxes, target in zip(logits, boxes, targets):
        scale = target['size'].repeat(2)
        overlap = giou(corners(image_boxes)[:, None] * scale, corners(target['boxes']) * scale)
        distance = (image_boxes[:, None] - target['boxes']).abs().sum(-1)
        p = image_logits.sigmoid()
        positive = 0.25 * (1 - p) ** 2 * -F.logsigmoid(image_logits)
        negative = 0.75 * p**2 * -F.logsigmoid(-image_logits)
        cost = 2 * (positive - negative)[:, target['labels']] + 5 * distance - 2 * overlap
        queries, objects = linear_sum_assignment(cost.detach().numpy())
        is_positive = torch.zeros_like(p, dtype=torch.bool)
        is_positive[queries, target['labels'][objects]] = True
        total['loss_cls'] = total['loss_cls'] + 2 * torch.where(is_positive, positive, negative).sum() / normaliser
        total['loss_bbox'] = total['loss_bbox'] + 5 * distance[queries, objects].sum() / normaliser
        total['loss_iou'] = total['loss_iou'] + 2 * (1 - overlap[queries, objects]).sum() / normaliser
    return total


def losses(
    outputs: Dict[str, Tensor],
    targets: List[Dict[str, Tensor]],
    num_one2one: int,
    num_one2many: int,
    k: int,
    weight: float,
) -> Dict[str, Tensor]:
    """All losses by mmdet's names; the weight of the one-to-many losses is in them."""
    repeated = [{**t, 'labels': t['labels'].repeat(k), 'boxes': t['boxes'].repeat(k, 1)} for t in targets]
    foreground = [{**t, 'labels': torch.zeros_like(t['labels'])} for t in targets]
    found = set_losses(outputs['enc_logits'], outputs['enc_boxes'], foreground)
    found = {f'enc_{name}': loss for name, loss in found.items()}
    last = len(outputs['logits']) - 1
    for index, (logits, boxes) in enumerate(zip(outputs['logits'], outputs['boxes'])):
        prefix = '' if index == last else f'd{index}.'
        for name, loss in set_losses(logits[:, :num_one2one], boxes[:, :num_one2one], targets).items():
            found[prefix + name] = loss
        if num_one2many:
            for name, loss in set_losses(logits[:, num_one2one:], boxes[:, num_one2one:], repeated).items():
                found[f'{prefix}{name}_one2many'] = loss * weight
    return found
