"""The functions that stand in for mmcv's compiled ones, against those and against their definitions."""

import math

import mmcv._ext
import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention, batched_nms
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch

from lite_detr_mmdet.compat import has_stand_in, mmcv_functions

compiled = pytest.mark.skipif(has_stand_in(), reason="needs mmcv's compiled operators")
without_compiled = pytest.mark.skipif(not has_stand_in(), reason="mmcv's compiled operators are installed")


def random_boxes(num_boxes: int, size: float = 100, dtype: torch.dtype = torch.float32):
    centers, extents = torch.rand(num_boxes, 2) * size, torch.rand(num_boxes, 2) * size / 4 + 1
    boxes = torch.cat([centers - extents / 2, centers + extents / 2], -1).to(dtype)
    return boxes, torch.rand(num_boxes).to(dtype)


@compiled
@pytest.mark.parametrize('num_boxes', [0, 1, 2, 300, 2500])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('iou_threshold', [0.0, 0.5, 0.8, 1.0])
def test_nms_equals_that_of_mmcv(num_boxes, offset, iou_threshold):
    boxes, scores = random_boxes(num_boxes)
    expected = mmcv._ext.nms(boxes, scores, iou_threshold=iou_threshold, offset=offset)
    assert torch.equal(mmcv_functions.nms_in_pytorch(boxes, scores, iou_threshold, offset), expected)
    assert torch.equal(mmcv_functions.nms(boxes, scores, iou_threshold=iou_threshold, offset=offset), expected)


@compiled
def test_nms_of_equal_and_empty_boxes_equals_that_of_mmcv():
    boxes, scores = random_boxes(40)
    boxes = torch.cat([boxes, boxes, boxes[:, [0, 1, 0, 1]], boxes[:, [2, 3, 0, 1]]])
    scores = torch.cat([scores, scores - 0.01, scores + 0.01, scores])
    expected = mmcv._ext.nms(boxes, scores, iou_threshold=0.5, offset=0)
    assert torch.equal(mmcv_functions.nms_in_pytorch(boxes, scores, 0.5), expected)


@pytest.mark.parametrize('pairs', [1, 1000, 2**20])  # a box at a time, five at first, all at once
def test_nms_by_definition(monkeypatch, pairs):
    monkeypatch.setattr(mmcv_functions, 'NMS_PAIRS', {False: pairs})
    boxes, scores = random_boxes(200, dtype=torch.float64)
    kept = []
    for index in scores.argsort(descending=True).tolist():
        x1, y1, x2, y2 = boxes[index].tolist()
        for other in kept:
            u1, v1, u2, v2 = boxes[other].tolist()
            inter = max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1))
            if inter / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter) > 0.3:
                break
        else:
            kept.append(index)
    assert len(kept) < 200
    assert mmcv_functions.nms(boxes, scores, 0.3, 0).tolist() == kept
    assert mmcv_functions.nms_in_pytorch(boxes, scores, 0.3).tolist() == kept


@pytest.mark.parametrize('pairs', [1, 2**20])
def test_nms_of_boxes_without_area_and_of_none(monkeypatch, pairs):
    monkeypatch.setattr(mmcv_functions, 'NMS_PAIRS', {False: pairs})
    nan = float('nan')
    boxes = torch.tensor([[0, 0, 9, 9], [5, 5, 5, 5], [5, 5, 5, 5], [nan, 0, 9, 9], [0, 0, 9, 9], [9, 9, 0, 0]])
    scores = torch.tensor([0.5, 0.4, 0.3, 0.2, 0.1, 0.6])
    assert mmcv_functions.nms_in_pytorch(boxes, scores, 0.5).tolist() == [5, 0, 1, 2, 3]
    assert mmcv_functions.nms_in_pytorch(boxes[:0], scores[:0], 0.5).tolist() == []


def test_torchvision_that_does_not_load_is_left_aside(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'torchvision', None)
    mmcv_functions.find_torchvision_nms.cache_clear()
    boxes, scores = random_boxes(50)
    try:
        assert mmcv_functions.find_torchvision_nms() is None
        kept = mmcv_functions.nms(boxes, scores, 0.5, 0)
    finally:
        mmcv_functions.find_torchvision_nms.cache_clear()
    assert torch.equal(kept, mmcv_functions.nms_in_pytorch(boxes, scores, 0.5))


@without_compiled
def test_batched_nms_of_mmcv_runs():
    boxes, scores = random_boxes(300)
    labels = torch.randint(3, (300,))
    detections, kept = batched_nms(boxes, scores, labels, dict(type='nms', iou_threshold=0.4))
    expected = torch.cat(
        [
            index[mmcv_functions.nms_in_pytorch(boxes[index], scores[index], 0.4)]
            for index in ((labels == label).nonzero()[:, 0] for label in range(3))
        ]
    )
    assert sorted(kept.tolist()) == sorted(expected.tolist())
    assert torch.equal(detections[:, 4], scores[kept]) and (detections[:-1, 4] >= detections[1:, 4]).all()


@pytest.mark.parametrize('with_weight', [False, True])
def test_sigmoid_focal_loss_by_definition(with_weight):
    gamma, alpha, num_classes = 2.0, 0.25, 3
    logits = torch.randn(6, num_classes, dtype=torch.float64) * 3
    target = torch.tensor([0, 1, 2, 3, 3, 1])  # 3 is background
    weight = torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64) if with_weight else logits.new_empty(0)
    loss, gradient = torch.zeros_like(logits), torch.zeros_like(logits)
    mmcv_functions.sigmoid_focal_loss_forward(logits, target, weight, loss, gamma=gamma, alpha=alpha)
    mmcv_functions.sigmoid_focal_loss_backward(logits, target, weight, gradient, gamma=gamma, alpha=alpha)
    for row in range(6):
        factor = weight[target[row]].item() if with_weight and target[row] < num_classes else 1.0
        for column in range(num_classes):
            p = 1 / (1 + math.exp(-logits[row, column].item()))
            if target[row] == column:
                value = -alpha * (1 - p) ** gamma * math.log(p)
                slope = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * math.log(p))
            else:
                value = -(1 - alpha) * p**gamma * math.log(1 - p)
                slope = -(1 - alpha) * p**gamma * (gamma * (1 - p) * math.log(1 - p) - p)
            assert loss[row, column].item() == pytest.approx(factor * value, rel=1e-9)
            assert gradient[row, column].item() == pytest.approx(factor * slope, rel=1e-9)


@without_compiled
def test_sigmoid_focal_loss_of_mmcv_trains():
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss, sigmoid_focal_loss

    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 3, 4, 4, 2])
    weight = torch.rand(5, dtype=torch.float64)
    loss = sigmoid_focal_loss(logits, target, weight, avg_factor=3.0)  # what MMDetection calls on GPUs
    (gradient,) = torch.autograd.grad(loss, logits)
    one_hot = torch.nn.functional.one_hot(target, 5)[:, :4]
    expected = py_sigmoid_focal_loss(logits, one_hot, weight, avg_factor=3.0)  # what it calls on CPUs
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])


def attention_inputs():
    shapes = torch.tensor([[5, 4], [3, 2]])
    value = torch.randn(2, 26, 2, 4, dtype=torch.float64, requires_grad=True)
    locations = (torch.rand(2, 7, 2, 2, 3, 2, dtype=torch.float64) * 1.2 - 0.1).requires_grad_()
    weights = torch.rand(2, 7, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    return value, shapes, torch.tensor([0, 20]), locations, weights


def test_ms_deform_attn():
    value, shapes, starts, locations, weights = attention_inputs()
    output = mmcv_functions.ms_deform_attn_forward(value, shapes, starts, locations, weights, im2col_step=64)
    expected = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    torch.testing.assert_close(output, expected.detach())
    grad_output = torch.randn_like(output)
    gradients = [torch.full_like(tensor, float('nan')) for tensor in (value, locations, weights)]
    mmcv_functions.ms_deform_attn_backward(
        value, shapes, starts, locations, weights, grad_output, *gradients, im2col_step=64
    )
    for result, tensor in zip(gradients, torch.autograd.grad(expected, (value, locations, weights), grad_output)):
        torch.testing.assert_close(result, tensor)


@without_compiled
def test_ms_deform_attn_function_of_mmcv():
    value, shapes, starts, locations, weights = attention_inputs()
    torch.autograd.gradcheck(
        lambda *tensors: MultiScaleDeformableAttnFunction.apply(tensors[0], shapes, starts, *tensors[1:], 64),
        (value, locations, weights),
    )


def test_attention_module_of_mmcv_runs():
    attention = MultiScaleDeformableAttention(16, num_heads=2, num_levels=2, num_points=3, batch_first=True)
    output = attention(
        torch.randn(1, 5, 16),
        value=torch.randn(1, 26, 16),
        reference_points=torch.rand(1, 5, 2, 2),
        spatial_shapes=torch.tensor([[5, 4], [3, 2]]),
        level_start_index=torch.tensor([0, 20]),
    )
    assert output.shape == (1, 5, 16) and output.isfinite().all()
