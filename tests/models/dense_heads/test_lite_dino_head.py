"""The head of Lite-DINO decodes boxes as the authors' head does."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.optim import build_optim_wrapper
from torch.nn import functional as F

import lite_detr_mmdet  # noqa: F401


def build(head_type: str, **options):
    torch.manual_seed(0)
    cfg = dict(
        type=head_type,
        num_classes=3,
        embed_dims=8,
        num_pred_layer=options.pop('num_pred_layer', 2),
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


def test_tied_branches_have_the_gradients_of_the_authors():
    """One class layer and one box network, called for every layer of the decoder, as in the authors' code."""
    head = build('LiteDINOHead', tied_branches=True, num_pred_layer=3).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    hidden_states = torch.randn(2, 1, 6, 8, dtype=torch.float64)
    references = [torch.rand(1, 6, 4, dtype=torch.float64) for _ in range(2)]
    weights = [torch.randn(2, 1, 6, size, dtype=torch.float64) for size in (3, 4)]
    outputs = head(hidden_states, references)
    sum((output * weight).sum() for output, weight in zip(outputs, weights)).backward()
    found = {name: p.grad for name, p in head.named_parameters() if '_branches.0.' in name}

    leaves = {name: p.detach().clone().requires_grad_() for name, p in head.named_parameters() if name in found}
    box_layers = [(leaves[f'reg_branches.0.{i}.weight'], leaves[f'reg_branches.0.{i}.bias']) for i in (0, 2, 4)]
    loss = 0
    for hidden_state, reference, class_weight, box_weight in zip(hidden_states, references, *weights):
        classes = F.linear(hidden_state, leaves['cls_branches.0.weight'], leaves['cls_branches.0.bias'])
        offset = hidden_state
        for index, layer in enumerate(box_layers):
            offset = F.linear(offset.relu() if index else offset, *layer)
        logits = torch.log(reference.clamp(min=1e-3) / (1 - reference).clamp(min=1e-3))
        loss = loss + (classes * class_weight).sum() + ((offset + logits).sigmoid() * box_weight).sum()
    loss.backward()
    assert len(found) == len(leaves) == 8
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, leaves[name].grad)


@pytest.mark.parametrize('tied', [False, True])
def test_names_and_parameters(tied):
    head = build('LiteDINOHead', tied_branches=tied, num_pred_layer=4)
    head.init_weights()
    stock = build('DINOHead', num_pred_layer=4)
    assert head.state_dict().keys() == stock.state_dict().keys()
    for branches in (head.cls_branches, head.reg_branches):
        assert len({id(branch) for branch in branches}) == (2 if tied else 4)  # the last is the encoder's own
        assert branches[3] is not branches[0]


def test_a_step_with_tied_branches_equals_the_sum_of_untied_ones(tiny_config, batch):
    """In the whole detector, whose decoder calls the box branches too."""
    cfg = tiny_config('lite_dino/lite-dino-4scale_h3l1-2p1x3-tied_r50_8xb2-36e_coco.py')
    cfg.model.decoder.num_layers = 3
    tied = MODELS.build(copy.deepcopy(cfg.model))
    tied.init_weights()
    cfg.model.bbox_head.tied_branches = False
    untied = MODELS.build(cfg.model)
    untied.load_state_dict(tied.state_dict())
    for model in (tied, untied):
        torch.manual_seed(0)
        data = model.data_preprocessor(batch(), training=True)
        loss, _ = model.train().parse_losses(model(**data, mode='loss'))
        loss.backward()
    gradients = {name: parameter.grad for name, parameter in untied.named_parameters()}
    for name, parameter in tied.named_parameters():
        expected = gradients[name]
        if '_branches.0.' in name:
            expected = sum(gradients[name.replace('.0.', f'.{layer}.', 1)] for layer in range(3))
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-5)
    # The optimizer gets a shared weight once.
    optimizer = build_optim_wrapper(tied, cfg.optim_wrapper).optimizer
    in_optimizer = [id(parameter) for group in optimizer.param_groups for parameter in group['params']]
    assert len(in_optimizer) == len(set(in_optimizer))
    assert set(in_optimizer) == {id(parameter) for parameter in tied.parameters() if parameter.requires_grad}
