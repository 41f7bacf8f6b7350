"""What holds for every Lite detector: gradients, small and empty inputs, predictions, equality with its host."""

import copy

import pytest
import torch
from mmdet.registry import MODELS

import lite_detr_mmdet  # noqa: F401
from lite_detr_mmdet.models.layers import KeyAwareDeformableAttention, LiteEncoder

# A config of each Lite detector and the detector that it makes Lite.
HOSTS = {
    'lite_ddq_detr/lite-ddq-detr_h3l1-2p1x3_r50_8xb2-12e_coco.py': 'DDQDETR',
    'lite_deformable_detr/lite-deformable-detr_h3l1-2p1x3_r50_16xb2-50e_coco.py': 'DeformableDETR',
    'lite_grounding_dino/lite-grounding-dino_h3l1-2p1x3_r50_8xb2-12e_coco.py': 'GroundingDINO',
    'lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py': 'DINO',
    'lite_h_detr/lite-h-detr_h3l1-2p1x3_r50_8xb2-36e_coco.py': 'HDETR',
}
SMALL = dict(
    backbone=dict(frozen_stages=-1),
    encoder=dict(num_layers=2, num_blocks=1, num_cp=-1, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=64))),
    decoder=dict(num_layers=2, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=64))),
)


@pytest.fixture(params=HOSTS.items(), ids=HOSTS.values())
def host(request, tiny_config):
    """Small model config of a Lite detector, and the name of its host."""
    path, stock_type = request.param
    cfg = tiny_config(path)
    cfg.merge_from_dict(dict(model=SMALL))
    return cfg.model, stock_type


def build(cfg):
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model


def training_losses(model, data):
    model.train()
    return model.parse_losses(model(**model.data_preprocessor(data, training=True), mode='loss'))


def predict(model, data):
    with torch.no_grad():
        return [sample.pred_instances for sample in model.eval().test_step(data)]


def test_key_aware_everywhere(host):
    model = MODELS.build(host[0])
    assert isinstance(model.encoder, LiteEncoder)
    attention = [layer.self_attn for layer in model.encoder.layers]
    attention += [layer.cross_attn for layer in model.decoder.layers]
    assert all(isinstance(module, KeyAwareDeformableAttention) for module in attention)
    assert all(module.batch_first for module in attention)


@pytest.mark.parametrize('num_boxes', [(3, 1), (2, 0), (0, 0), (4,), (0,)], ids=str)
def test_every_parameter_gets_a_gradient(host, batch, num_boxes):
    model = build(host[0])
    loss, log = training_losses(model, batch(num_boxes))
    assert all(torch.isfinite(value).all() for value in log.values())
    loss.backward()
    parameters = {name: param for name, param in model.named_parameters() if param.requires_grad}
    assert [name for name, param in parameters.items() if param.grad is None] == []
    assert [name for name, param in parameters.items() if not param.grad.isfinite().all()] == []


@pytest.mark.parametrize('num_boxes', [(2, 1), (0,)], ids=str)
def test_fewer_tokens_than_queries(host, batch, num_boxes):
    cfg, _ = host
    cfg.num_queries = 100
    cfg.test_cfg.max_per_img = 100
    size = (64, 64)  # 8 * 8 + 4 * 4 + 2 * 2 + 1 tokens
    model = build(cfg)
    loss, log = training_losses(model, batch(num_boxes, size))
    assert all(torch.isfinite(value).all() for value in log.values())
    loss.backward()
    assert [name for name, param in model.named_parameters() if param.requires_grad and param.grad is None] == []
    assert all(param.grad.isfinite().all() for param in model.parameters() if param.grad is not None)
    for predictions in predict(model, batch(num_boxes, size)):
        assert len(predictions) == 100
        assert predictions.bboxes.isfinite().all() and predictions.scores.isfinite().all()


@pytest.mark.parametrize('num_boxes', [(2, 2), (1,)], ids=str)
def test_prediction(host, batch, num_boxes):
    cfg, _ = host
    data = batch(num_boxes)
    for predictions, sample in zip(predict(build(cfg), data), data['data_samples']):
        assert len(predictions) == 10 and predictions.scores.min() >= 0
        height, width = sample.ori_shape
        assert (predictions.bboxes >= 0).all()
        assert (predictions.bboxes <= predictions.bboxes.new_tensor([width, height, width, height])).all()


def stock_config(cfg, stock_type):
    """The host's own config: nothing of it is chosen from the registry."""
    stock = copy.deepcopy(cfg)
    stock.type = stock_type
    for key in ('type', 'num_blocks', 'num_low_levels'):
        stock.encoder.pop(key)
    stock.encoder.layer_cfg.self_attn_cfg.pop('type')
    stock.decoder.layer_cfg.cross_attn_cfg.pop('type')
    if stock.bbox_head.type == 'LiteDINOHead':
        stock.bbox_head.type = 'DINOHead'
    return stock


def test_no_low_levels_and_ordinary_attention_is_the_host(host, batch):
    cfg, stock_type = host
    stock = build(stock_config(cfg, stock_type))
    assert type(stock).__module__.startswith('mmdet.') or stock_type == 'HDETR'
    cfg.encoder.num_low_levels = 0
    cfg.encoder.layer_cfg.self_attn_cfg.pop('type')
    cfg.decoder.layer_cfg.cross_attn_cfg.type = 'MultiScaleDeformableAttention'
    if cfg.bbox_head.type == 'LiteDINOHead':
        cfg.bbox_head.reference_eps = None
    lite = MODELS.build(cfg)
    lite.load_state_dict(stock.state_dict(), strict=True)
    losses = []
    for model in (stock, lite):
        torch.manual_seed(0)  # of dropout and denoising queries
        loss, log = training_losses(model, batch())
        loss.backward()
        losses.append(log)
    assert losses[0].keys() == losses[1].keys()
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
    for (name, expected), parameter in zip(stock.named_parameters(), lite.parameters()):
        assert (expected.grad is None) == (parameter.grad is None), name
        assert expected.grad is None or torch.equal(parameter.grad, expected.grad), name
    for expected, result in zip(predict(stock, batch()), predict(lite, batch())):
        assert torch.equal(result.bboxes, expected.bboxes) and torch.equal(result.scores, expected.scores)


def test_host_itself_fails_on_fewer_tokens_than_queries(batch, tiny_config):
    """If mmdet learns to do this, what the Lite detectors do about it can go."""
    path = next(path for path, stock_type in HOSTS.items() if stock_type == 'DINO')
    cfg = tiny_config(path, num_queries=100)
    cfg.merge_from_dict(dict(model=SMALL))
    with pytest.raises(RuntimeError, match='out of range'):
        predict(build(stock_config(cfg.model, 'DINO')), batch((1,), (64, 64)))
