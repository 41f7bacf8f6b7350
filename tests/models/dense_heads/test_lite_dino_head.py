"""The head of Lite-DINO decodes boxes as the authors' head does."""

import pytest
import torch
from mmdet.registry import MODELS

import lite_detr_mmdet  # noqa: F401


def build(head_type: str, **options):
    torch.manual_seed(0)
    cfg = dict(
        type=head_type,
        num_classes=3,
        embed_dims=8,
        num_pred_layer=2,
        as_two_stage=True,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True),
        loss_bbox=dict(type='L1Loss'),
        loss_iou=dict(type='GIoULoss'),
        **options,
    )
    return MODELS.build(cfg)


@pytest.fixture
def inputs() -> tuple:
    values = torch.tensor([0.0, 1e-6, 5e-4, 0.3, 0.9995, 1.0]).repeat_interleave(4).view(1, 6, 4)
    return torch.randn(1, 1, 6, 8), [values, values]


def test_boxes_are_those_of_the_authors_formula(inputs):
    head = build('LiteDINOHead')
    hidden_states, references = inputs
    classes, boxes = head(*inputs)
    limited = references[0].clamp(0, 1)
    logits = torch.log(limited.clamp(min=1e-3) / (1 - limited).clamp(min=1e-3))
    expected = (head.reg_branches[0](hidden_states[0]) + logits).sigmoid()
    assert (boxes[0] - expected).abs().max() < 1e-6
    stock_classes, stock_boxes = build('DINOHead')(*inputs)
    assert torch.equal(classes, stock_classes)
    inner = (references[0] > 1e-3) & (references[0] < 1 - 1e-3)
    assert (boxes - stock_boxes)[0][inner].abs().max() < 1e-6
    assert (boxes - stock_boxes)[0][~inner].abs().max() > 1e-4


def test_gradient_is_that_of_the_authors_formula(inputs):
    head = build('LiteDINOHead')
    hidden_states, (references, _) = inputs
    leaves = [references.clone().requires_grad_() for _ in range(2)]
    head(hidden_states, [leaves[0], leaves[0]])[1].sum().backward()
    limited = leaves[1].clamp(0, 1)
    logits = torch.log(limited.clamp(min=1e-3) / (1 - limited).clamp(min=1e-3))
    (head.reg_branches[0](hidden_states[0]) + logits).sigmoid().sum().backward()
    assert torch.allclose(leaves[0].grad, leaves[1].grad, rtol=1e-4, atol=1e-4)


def test_without_a_limit_it_is_the_head_of_mmdet(inputs):
    result, expected = build('LiteDINOHead', reference_eps=None)(*inputs), build('DINOHead')(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(result, expected))


@pytest.mark.parametrize('eps', [0, 0.5, -1e-3])
def test_bad_limit(eps):
    with pytest.raises(ValueError, match='reference_eps must be at least 1e-5 and below'):
        build('LiteDINOHead', reference_eps=eps)
