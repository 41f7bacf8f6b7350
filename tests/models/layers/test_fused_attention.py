"""Ordinary deformable attention, fused: as a module, in a config, and swapped into mmdet's detectors."""

import copy
from pathlib import Path

import mmdet
import pytest
import torch
from helpers.tolerances import GRADIENT_RELATIVE_L2, RELATIVE_L2, relative_l2
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.registry import HOOKS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from lite_detr_mmdet.models.layers import (
    FusedMultiScaleDeformableAttention,
    KeyAwareDeformableAttention,
    restore_attention,
    swap_attention,
)

SHAPES = torch.tensor([[8, 6], [4, 3], [2, 2]])
STARTS = torch.tensor([0, 48, 60])
NUM_VALUE = 64
CFG = dict(embed_dims=32, num_heads=4, num_levels=3, num_points=2, dropout=0.0)


def randomize(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


def make_inputs(batch_first: bool, boxes: bool, masked: bool) -> dict:
    def tokens(count: int) -> torch.Tensor:
        return torch.randn(2, count, 32) if batch_first else torch.randn(count, 2, 32)

    return dict(
        query=tokens(7),
        value=tokens(NUM_VALUE),
        query_pos=tokens(7),
        identity=tokens(7),
        key_padding_mask=torch.rand(2, NUM_VALUE) < 0.3 if masked else None,
        reference_points=torch.rand(2, 7, 3, 4 if boxes else 2),
        spatial_shapes=SHAPES,
        level_start_index=STARTS,
    )


@pytest.mark.parametrize('batch_first', [False, True])
@pytest.mark.parametrize('boxes', [False, True])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('ratio', [1.0, 2.0])
def test_equals_its_parent(batch_first, boxes, masked, ratio):
    options = dict(CFG, batch_first=batch_first, value_proj_ratio=ratio)
    parent = MultiScaleDeformableAttention(**options)
    randomize(parent)
    fused = MODELS.build(dict(type='FusedMultiScaleDeformableAttention', backend='fused', **options))
    fused.load_state_dict(parent.state_dict(), strict=True)
    inputs = make_inputs(batch_first, boxes, masked)
    grad_output = torch.randn_like(inputs['query'])
    results = []
    for module in (parent, fused):
        query, value = inputs['query'].clone().requires_grad_(), inputs['value'].clone().requires_grad_()
        output = module(**dict(inputs, query=query, value=value))
        output.backward(grad_output)
        parameters = {name: parameter.grad for name, parameter in module.named_parameters()}
        results.append(dict(output=output, query=query.grad, value=value.grad, **parameters))
    for name, expected in results[0].items():
        tolerance = RELATIVE_L2 if name == 'output' else GRADIENT_RELATIVE_L2
        assert relative_l2(results[1][name], expected) < tolerance[torch.float32], name


def test_arguments_that_may_be_left_out():
    """The query is value and identity; the identity has a former name."""
    module = MultiScaleDeformableAttention(**CFG, batch_first=True).eval()
    randomize(module)
    fused = copy.deepcopy(module)
    assert swap_attention(fused) == ['']
    query = torch.randn(2, NUM_VALUE, 32)
    places = dict(reference_points=torch.rand(2, NUM_VALUE, 3, 2), spatial_shapes=SHAPES, level_start_index=STARTS)
    assert relative_l2(fused(query, **places), module(query, **places)) < RELATIVE_L2[torch.float32]
    identity = torch.randn_like(query)
    with pytest.warns(DeprecationWarning, match='residual'):
        expected = module(query, residual=identity, **places)
    assert relative_l2(fused(query, residual=identity, **places), expected) < RELATIVE_L2[torch.float32]


def test_swap_and_restore():
    model = nn.ModuleDict(
        dict(
            ordinary=MultiScaleDeformableAttention(**CFG),
            key_aware=KeyAwareDeformableAttention(**CFG),
        )
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    keys, parameters = list(model.state_dict()), [id(parameter) for parameter in model.parameters()]
    assert swap_attention(model) == ['ordinary'] and swap_attention(model) == []
    assert type(model['ordinary']) is FusedMultiScaleDeformableAttention
    assert type(model['key_aware']) is KeyAwareDeformableAttention
    assert list(model.state_dict()) == keys and [id(parameter) for parameter in model.parameters()] == parameters
    assert [id(p) for p in optimizer.param_groups[0]['params']] == parameters
    assert restore_attention(model) == ['ordinary']
    assert type(model['ordinary']) is MultiScaleDeformableAttention


MMDET_CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
# Stock detectors and how many attentions they have.
DETECTORS = {
    'dino/dino-4scale_r50_8xb2-12e_coco.py': 12,
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py': 12,
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': 6,
}


@pytest.mark.parametrize('name', DETECTORS)
def test_swapped_detectors_compute_the_same(name):
    cfg = Config.fromfile(MMDET_CONFIGS / name)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model).eval()
    if hasattr(model, 'level_embed'):  # uninitialised memory until init_weights
        model.level_embed.data.zero_()
    for parameter in model.parameters():  # the default offsets are the same for all queries
        parameter.data += 0.01 * torch.randn_like(parameter)
    image = torch.randn(1, 3, 96, 128)
    swapped = copy.deepcopy(model)
    assert len(swap_attention(swapped)) == DETECTORS[name]
    assert list(swapped.state_dict()) == list(model.state_dict())
    with torch.no_grad():
        expected, actual = (_memory(host, image) for host in (model, swapped))
    assert (actual - expected).abs().max() < 1e-5 * expected.abs().max()


def _memory(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """What the encoder makes of an image."""
    features = model.extract_feat(image)
    if hasattr(model, 'panoptic_head'):
        return torch.cat([x.flatten() for x in model.panoptic_head.pixel_decoder(features)[1]])
    shape = tuple(image.shape[-2:])
    meta = dict(img_shape=shape, batch_input_shape=shape, ori_shape=shape, pad_shape=shape)
    encoder_inputs, decoder_inputs = model.pre_transformer(features, [DetDataSample(metainfo=meta)])
    memory = model.forward_encoder(**encoder_inputs)['memory']
    # The decoder with queries of its own: which ones the encoder proposes depends on the order of near-equal scores.
    query = torch.randn(1, 9, memory.shape[-1], generator=torch.Generator().manual_seed(0))
    decoded = model.decoder.layers[0](
        query,
        query_pos=query,
        value=memory,
        key_padding_mask=decoder_inputs.get('memory_mask'),
        reference_points=torch.rand(1, 9, 4, 4, generator=torch.Generator().manual_seed(1)),
        spatial_shapes=decoder_inputs['spatial_shapes'],
        level_start_index=decoder_inputs['level_start_index'],
    )
    return torch.cat([memory.flatten(), decoded.flatten()])


def test_hook():
    class Runner:
        model = nn.Sequential(MultiScaleDeformableAttention(**CFG))

        class logger:
            messages = []
            info = messages.append

    hook = HOOKS.build(dict(type='FusedAttentionHook'))
    hook.before_run(Runner)
    assert type(Runner.model[0]) is FusedMultiScaleDeformableAttention
    hook.before_run(Runner)  # nothing is left to swap, and nothing is said
    assert Runner.logger.messages == ['FusedAttentionHook: 1 attention modules run fused']
