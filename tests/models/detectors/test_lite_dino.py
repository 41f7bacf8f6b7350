"""Lite-DINO: what test_lite_hosts.py does not ask of every Lite detector."""

import pytest
import torch
from mmdet.registry import MODELS

import lite_detr_mmdet  # noqa: F401
from lite_detr_mmdet.models.layers import KeyAwareDeformableAttention

SMALL = 'lite_dino/lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes.py'
HL_ONLY = dict(encoder=dict(low_level_update='none'), decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=3))))


def build(cfg):
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def training_losses(model, data):
    model.train()
    data = model.data_preprocessor(data, training=True)
    losses, log = model.parse_losses(model(**data, mode='loss'))
    return losses, log


@pytest.mark.parametrize('num_boxes', [(3, 1), (0,)], ids=str)
def test_every_parameter_gets_a_gradient_from_high_levels_only(tiny_config, batch, num_boxes):
    cfg = tiny_config(SMALL)
    cfg.merge_from_dict(dict(model=HL_ONLY))
    model = build(cfg)
    loss, log = training_losses(model, batch(num_boxes))
    assert all(torch.isfinite(value).all() for value in log.values())
    loss.backward()
    without = [name for name, param in model.named_parameters() if param.requires_grad and param.grad is None]
    assert without == []


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(tiny_config, batch, dtype):
    model = build(tiny_config(SMALL))
    with torch.autocast('cpu', dtype):
        loss, log = training_losses(model, batch())
    assert all(torch.isfinite(value).all() for value in log.values())
    loss.backward()
    assert all(param.grad.isfinite().all() for param in model.parameters() if param.grad is not None)


def test_decoder_attention_is_configurable(tiny_config):
    cfg = tiny_config(SMALL)
    model = MODELS.build(cfg.model)
    assert all(isinstance(layer.cross_attn, KeyAwareDeformableAttention) for layer in model.decoder.layers)
    cfg = tiny_config(SMALL)
    del cfg.model.decoder.layer_cfg.cross_attn_cfg['type']
    model = MODELS.build(cfg.model)
    assert not any(isinstance(layer.cross_attn, KeyAwareDeformableAttention) for layer in model.decoder.layers)


def test_initialisation_of_the_detector(tiny_config):
    model = build(tiny_config(SMALL))
    attentions = [module for module in model.modules() if isinstance(module, KeyAwareDeformableAttention)]
    assert len(attentions) == 2 + 3
    for attention in attentions:
        assert attention.sampling_offsets.weight.abs().max() == 0
        assert attention.sampling_offsets.bias.abs().max() == attention.num_points
    assert model.level_embed.isfinite().all()


def test_high_level_only_decodes_three_levels(tiny_config, batch):
    cfg = tiny_config(SMALL)
    cfg.merge_from_dict(dict(model=HL_ONLY))
    model = build(cfg).eval()
    seen = {}
    model.decoder.register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
    model.test_step(batch((1, 1)))
    num_high = 8 * 10 + 4 * 5 + 2 * 3
    assert seen['value'].shape[1] == seen['key_padding_mask'].shape[1] == num_high
    assert seen['spatial_shapes'].tolist() == [[8, 10], [4, 5], [2, 3]]
    assert seen['level_start_index'].tolist() == [0, 80, 100]
    assert seen['valid_ratios'].shape[1] == 3
