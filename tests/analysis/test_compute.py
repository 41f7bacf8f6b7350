"""Counting multiply-adds and parameters: against values worked out by hand, on every backend, and wrong input."""

from typing import Optional

import pytest
import torch
from helpers.detectors import FFN_CHANNELS
from mmdet.registry import MODELS
from torch import nn

import lite_detr_mmdet  # noqa: F401
from lite_detr_mmdet.analysis import PARTS, count_compute, count_config
from lite_detr_mmdet.analysis.compute import count_macs, count_parameters, sum_of_part
from lite_detr_mmdet.ops.extension import is_available

LITE = 'lite_dino/lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes.py'
STOCK = 'dino/dino-4scale_r18_1xb4-12e_shapes.py'
SHAPE = (64, 96)
HIGH, LOW = 4 * 6 + 2 * 3 + 1 * 2, 8 * 12  # tokens of strides 16 to 64, and of stride 8
DIM, FFN, SAMPLES = 256, FFN_CHANNELS, 16


@pytest.fixture
def build(tiny_config):
    """Build one of the small detectors with an even smaller backbone.

    ``attention`` replaces all of its attention, other settings are those of the encoder's attention.
    """

    def make(path: str, attention: Optional[str] = None, **self_attn):
        cfg = tiny_config(path, num_queries=10).model
        cfg.backbone.base_channels = 8
        cfg.neck.in_channels = [16, 32, 64]
        if attention:
            cfg.encoder.layer_cfg.self_attn_cfg.type = attention
            cfg.decoder.layer_cfg.cross_attn_cfg.type = attention
        cfg.encoder.layer_cfg.self_attn_cfg.update(self_attn)
        return MODELS.build(cfg).eval()

    return make


def attention_macs(queries: int, offsets_and_weights: int, core: int) -> int:
    """Multiply-adds of a deformable attention of ``queries`` to all tokens."""
    per_query = DIM * offsets_and_weights + DIM * DIM + DIM * SAMPLES * core  # and the output projection
    return queries * per_query + (HIGH + LOW) * DIM * DIM


def test_encoder_by_hand(build):
    def ffn(tokens, channels):
        return tokens * 2 * DIM * channels

    offsets = 8 * SAMPLES * 2
    # Block (2+1)x1: a layer of high-level queries, then one of all; the small network is 8 times smaller.
    feed_forward = ffn(HIGH, FFN) + ffn(HIGH, FFN) + ffn(LOW, FFN // 8)
    key_aware = attention_macs(HIGH, offsets + DIM, 4 + 2) + attention_macs(HIGH + LOW, offsets + DIM, 4 + 2)
    assert sum_of_part(count_macs(build(LITE), SHAPE), 'encoder') == key_aware + feed_forward
    weights = 8 * SAMPLES
    plain = attention_macs(HIGH, offsets + weights, 5) + attention_macs(HIGH + LOW, offsets + weights, 5)
    model = build(LITE, 'MultiScaleDeformableAttention')
    assert sum_of_part(count_macs(model, SHAPE), 'encoder') == plain + feed_forward
    stock = 2 * (attention_macs(HIGH + LOW, offsets + weights, 5) + ffn(HIGH + LOW, FFN))
    assert sum_of_part(count_macs(build(STOCK), SHAPE), 'encoder') == stock


def test_separate_key_is_sampled_too(build):
    shared, separate = (count_macs(build(LITE, key_proj=key_proj), SHAPE) for key_proj in (False, True))
    expected = 2 * (HIGH + LOW) * DIM * DIM + (2 * HIGH + LOW) * DIM * SAMPLES * 4
    assert separate['encoder'] - shared['encoder'] == expected


def test_parts(build):
    model = build(LITE)
    macs = count_macs(model, SHAPE)
    parts = {part: sum_of_part(macs, part) for part in PARTS}
    # Outside of the parts there is only the projection of the memory to proposals.
    assert macs[''] - sum(parts.values()) == (HIGH + LOW) * DIM * DIM
    # These call nothing that another part owns.
    for part in ('backbone', 'neck', 'encoder'):
        assert parts[part] == macs[part]
    boxes = 2 * DIM * DIM + DIM * 4
    queries, layers = 10, model.decoder.num_layers
    memory = (HIGH + LOW) * (DIM * 3 + boxes)
    # The decoder refines its references with the box branches, and the head applies them again.
    assert parts['bbox_head'] == memory + queries * layers * (DIM * 3 + boxes + boxes)


@pytest.mark.parametrize('backend', ['reference', 'fused'])
def test_backends_and_data_change_nothing(build, monkeypatch, backend):
    if backend == 'fused' and not is_available():
        pytest.skip('the operators are not compiled')
    monkeypatch.setenv('LITE_DETR_BACKEND', backend)
    model = build(LITE)
    model.init_weights()
    macs = count_macs(model, SHAPE)
    assert count_macs(model, SHAPE, fake=False) == macs
    monkeypatch.setenv('LITE_DETR_BACKEND', 'auto')
    assert count_macs(model, SHAPE) == macs


def test_stock_attention_with_data(build):
    model = build(STOCK)
    model.init_weights()
    assert count_macs(model, SHAPE, fake=False) == count_macs(model, SHAPE)


def test_result(build):
    model = build(LITE).train()
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    hooks = sum(len(module._forward_pre_hooks) for module in model.modules())
    result = count_compute(model, SHAPE)
    assert set(result) == {'gmacs', 'params_m', 'trainable_params_m'}
    assert set(result['gmacs']) == set(result['params_m']) == {'total', *PARTS}
    for name in ('gmacs', 'params_m'):
        parts = [result[name][part] for part in PARTS]
        assert min(parts) >= 0 and sum(parts) <= result[name]['total'] + 0.003
    assert result['params_m']['encoder'] == round(count_parameters(model.encoder) / 1e6, 3)
    assert result['trainable_params_m'] == result['params_m']['total']  # nothing is frozen in these models
    # The model is as before.
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == trainable
    assert sum(len(module._forward_pre_hooks) for module in model.modules()) == hooks
    assert not any(isinstance(parameter, torch._subclasses.FakeTensor) for parameter in model.parameters())


def test_host_that_decides_by_values(tiny_config):
    """DDQ suppresses duplicates, which cannot be followed without data."""
    cfg = tiny_config('lite_ddq_detr/lite-ddq-detr_h3l1-2p1x3_r50_8xb2-12e_coco.py', num_queries=10).model
    cfg.backbone.update(depth=18, base_channels=8)
    cfg.neck.in_channels = [16, 32, 64]
    model = MODELS.build(cfg)
    model.init_weights()
    with pytest.raises(RuntimeError):
        count_macs(model.eval(), SHAPE)
    result = count_compute(model, SHAPE)
    assert result['gmacs']['encoder'] > 0 and result['gmacs']['decoder'] > 0


@pytest.mark.parametrize('shape', [(64,), (64, 0), (-1, 64), (64.0, 64)], ids=str)
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match='shape must be two positive integers, height and width, got'):
        count_compute(nn.Identity(), shape)


def test_image_that_is_too_small(build):
    with pytest.raises(ValueError, match='DINO cannot process a 3x8x8 image'):
        count_compute(build(STOCK), (8, 8))


def test_model_without_a_part(build):
    with pytest.raises(ValueError, match='Identity has no backbone'):
        count_compute(nn.Identity(), SHAPE)
    model = build(LITE)
    del model.decoder
    with pytest.raises(ValueError, match='LiteDINO has no decoder'):
        count_compute(model, SHAPE)


def test_config_without_a_model(tmp_path):
    path = tmp_path / 'empty.py'
    path.write_text('a = 1\n')
    with pytest.raises(ValueError, match='must be a config with a model, it has a'):
        count_config(str(path), SHAPE)
