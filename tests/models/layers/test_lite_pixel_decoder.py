"""The pixel decoder of Mask2Former with the interleaved encoder, beside the stock one."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict

import lite_detr_mmdet  # noqa: F401

STOCK = ConfigDict(
    type='MSDeformAttnPixelDecoder',
    in_channels=[4, 8, 12, 16],
    strides=[4, 8, 16, 32],
    feat_channels=16,
    out_channels=16,
    num_outs=3,
    norm_cfg=dict(type='GN', num_groups=4),
    encoder=dict(
        num_layers=4,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=16, num_heads=2, num_levels=3, num_points=4, dropout=0.0, batch_first=True),
            ffn_cfg=dict(embed_dims=16, feedforward_channels=64),
        ),
    ),
    positional_encoding=dict(num_feats=8, normalize=True),
)
NUM_LOW = 8 * 12  # tokens of stride 8


def build(attention='KeyAwareDeformableAttention', **options):
    cfg = copy.deepcopy(STOCK)
    cfg.type = 'LiteMSDeformAttnPixelDecoder'
    cfg.encoder.update(dict(num_blocks=2, **options))
    cfg.encoder.layer_cfg.self_attn_cfg.type = attention
    decoder = MODELS.build(cfg)
    decoder.init_weights()
    return decoder


@pytest.fixture
def feats():
    return [
        torch.randn(2, channels, 64 // stride, 96 // stride) for channels, stride in zip((4, 8, 12, 16), STOCK.strides)
    ]


def test_no_low_levels_and_ordinary_attention_is_the_stock_decoder(feats):
    stock = MODELS.build(copy.deepcopy(STOCK))
    stock.init_weights()
    lite = build('MultiScaleDeformableAttention', num_low_levels=0)
    lite.load_state_dict(stock.state_dict(), strict=True)
    outputs = []
    for decoder in (stock, lite):
        mask_feature, levels = decoder(feats)
        (mask_feature.square().sum() + sum(level.square().sum() for level in levels)).backward()
        outputs.append([mask_feature, *levels])
    assert all(torch.equal(result, expected) for expected, result in zip(*outputs))
    for (name, expected), parameter in zip(stock.named_parameters(), lite.parameters()):
        assert torch.equal(parameter.grad, expected.grad), name


@pytest.mark.parametrize('low_level_update', ['joint', 'sequential'])
def test_low_level_tokens_are_the_last_ones(feats, low_level_update):
    decoder = build(num_low_levels=1, low_level_update=low_level_update)
    queries = []
    for layer in decoder.encoder.layers:
        layer.register_forward_pre_hook(lambda _, args, kwargs: queries.append(kwargs['query']), with_kwargs=True)
    mask_feature, levels = decoder(feats)
    assert mask_feature.shape == (2, 16, 16, 24)
    assert [tuple(level.shape[-2:]) for level in levels] == [(2, 3), (4, 6), (8, 12)]
    num_high = 2 * 3 + 4 * 6
    closing = num_high + NUM_LOW if low_level_update == 'joint' else NUM_LOW
    assert [query.shape[1] for query in queries] == [num_high, closing, num_high, closing]
    # What the first layer does not update is what the neck made of stride 8, the last of the maps.
    untouched = decoder.input_convs[2](feats[1]).flatten(2).transpose(1, 2)
    assert torch.equal(queries[1][:, -NUM_LOW:], untouched)
    mask_feature.sum().backward()
    used = {name for name, parameter in decoder.named_parameters() if parameter.grad is not None}
    assert used == {name for name, _ in decoder.named_parameters()}


def test_high_level_only_is_refused():
    with pytest.raises(ValueError, match=r"low_level_update must be 'joint' or 'sequential'.*got 'none'"):
        build(low_level_update='none')
