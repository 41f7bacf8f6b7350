"""Mask2Former with the Lite pixel decoder: gradients, empty inputs, predictions, equality with the stock one."""

import copy

import pytest
import torch
from mmdet.registry import MODELS

import lite_detr_mmdet  # noqa: F401

CONFIG = 'lite_mask2former/lite-mask2former_h2l1-2p1x3_r50_8xb2-lsj-50e_coco.py'


@pytest.fixture
def model_cfg(tiny_config):
    cfg = tiny_config(CONFIG)
    pixel_decoder = dict(encoder=dict(num_layers=2, num_blocks=1))
    head = dict(pixel_decoder=pixel_decoder, transformer_decoder=dict(num_layers=3))
    cfg.merge_from_dict(dict(model=dict(panoptic_head=head)))
    return cfg.model


def build(cfg):
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model


def training_losses(model, data):
    model.train()
    return model.parse_losses(model(**model.data_preprocessor(data, training=True), mode='loss'))


@pytest.mark.parametrize('num_boxes', [(3, 1), (0, 0), (2,)], ids=str)
def test_training_and_prediction(model_cfg, batch, num_boxes):
    model = build(model_cfg)
    loss, log = training_losses(model, batch(num_boxes, (64, 96)))
    assert all(torch.isfinite(value).all() for value in log.values())
    loss.backward()
    parameters = {name: param for name, param in model.named_parameters() if param.requires_grad}
    assert [name for name, param in parameters.items() if param.grad is None] == []
    assert all(param.grad.isfinite().all() for param in parameters.values())
    with torch.no_grad():
        results = model.eval().test_step(batch(num_boxes, (64, 96)))
    assert [len(result.pred_instances) for result in results] == [10] * len(num_boxes)
    assert results[0].pred_instances.masks.shape == (10, 64, 96)


def test_no_low_levels_and_ordinary_attention_is_the_host(model_cfg, batch):
    stock_cfg = copy.deepcopy(model_cfg)
    pixel_decoder = stock_cfg.panoptic_head.pixel_decoder
    pixel_decoder.type = 'MSDeformAttnPixelDecoder'
    for key in ('type', 'num_blocks', 'num_low_levels'):
        pixel_decoder.encoder.pop(key)
    pixel_decoder.encoder.layer_cfg.self_attn_cfg.pop('type')
    stock = build(stock_cfg)
    encoder = model_cfg.panoptic_head.pixel_decoder.encoder
    encoder.num_low_levels = 0
    encoder.layer_cfg.self_attn_cfg.type = 'MultiScaleDeformableAttention'
    lite = MODELS.build(model_cfg)
    lite.load_state_dict(stock.state_dict(), strict=True)
    losses = []
    for model in (stock, lite):
        torch.manual_seed(0)  # of the points at which masks are compared
        loss, log = training_losses(model, batch(size=(64, 96)))
        loss.backward()
        losses.append(log)
    assert losses[0].keys() == losses[1].keys()
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
    for (name, expected), parameter in zip(stock.named_parameters(), lite.parameters()):
        assert (expected.grad is None) == (parameter.grad is None), name
        assert expected.grad is None or torch.equal(parameter.grad, expected.grad), name
