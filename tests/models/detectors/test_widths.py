"""Every Lite detector at other widths than 256, and with a host that changed the decoder of DINO."""

import copy

import pytest
import torch
from helpers.widths import set_width
from mmdet.models.layers import MLP, DinoTransformerDecoder
from mmdet.registry import MODELS

import lite_detr_mmdet  # noqa: F401
from lite_detr_mmdet.converters import mmdet_to_official, official_to_mmdet
from lite_detr_mmdet.models.layers import LiteDinoDecoder

DINO = 'lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py'
CONFIGS = {
    'DDQ-DETR': 'lite_ddq_detr/lite-ddq-detr_h3l1-2p1x3_r50_8xb2-12e_coco.py',
    'Deformable DETR': 'lite_deformable_detr/lite-deformable-detr_h3l1-2p1x3_r50_16xb2-50e_coco.py',
    'DINO': DINO,
    'Grounding DINO': 'lite_grounding_dino/lite-grounding-dino_h3l1-2p1x3_r50_8xb2-12e_coco.py',
    'H-DETR': 'lite_h_detr/lite-h-detr_h3l1-2p1x3_r50_8xb2-36e_coco.py',
    'Mask2Former': 'lite_mask2former/lite-mask2former_h2l1-2p1x3_r50_8xb2-lsj-50e_coco.py',
}
CONVERTIBLE = ('Deformable DETR', 'DINO', 'H-DETR')


@pytest.fixture
def wide(tiny_config):
    """Read a model config at a width."""

    def read(path: str, width: int):
        cfg = tiny_config(path).model
        set_width(cfg, width)
        return cfg

    return read


@pytest.mark.parametrize('width', [128, 192])
@pytest.mark.parametrize('path', CONFIGS.values(), ids=CONFIGS)
def test_trains_and_predicts(wide, batch, path, width):
    model = MODELS.build(wide(path, width))
    model.init_weights()
    model.train()
    loss, log = model.parse_losses(model(**model.data_preprocessor(batch((3, 1)), training=True), mode='loss'))
    assert all(torch.isfinite(value).all() for value in log.values())
    loss.backward()
    parameters = {name: param for name, param in model.named_parameters() if param.requires_grad}
    assert [name for name, param in parameters.items() if param.grad is None or not param.grad.isfinite().all()] == []
    with torch.no_grad():
        predictions = model.eval().test_step(batch((2,)))[0].pred_instances
    assert len(predictions) == 10 and predictions.scores.isfinite().all()


@pytest.mark.parametrize('width', [128, 192, 256])
@pytest.mark.parametrize('name', CONVERTIBLE)
def test_converts_there_and_back(wide, name, width):
    cfg = wide(CONFIGS[name], width)
    weights = MODELS.build(cfg).state_dict()
    official, _ = mmdet_to_official(weights, untied=True)
    back, _ = official_to_mmdet(official)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)


@pytest.mark.parametrize('width', [128, 256])
def test_shapes_are_the_released_ones_whatever_the_host(monkeypatch, wide, batch, width):
    """OneDL's decoder has a ``ref_point_head`` of twice the width, which no released weights fit."""
    cfg = wide(DINO, width)
    expected = MODELS.build(copy.deepcopy(cfg))
    expected.init_weights()
    assert expected.decoder.ref_point_head.layers[0].in_features == 2 * width

    original = DinoTransformerDecoder._init_layers

    def init_layers(self):
        original(self)
        self.ref_point_head = MLP(4 * self.embed_dims, self.embed_dims, self.embed_dims, 2)

    monkeypatch.setattr(DinoTransformerDecoder, '_init_layers', init_layers)
    model = MODELS.build(copy.deepcopy(cfg))
    model.load_state_dict(expected.state_dict(), strict=True)
    with torch.no_grad():
        results = [item.eval().test_step(batch((2,)))[0].pred_instances for item in (expected, model)]
    assert torch.equal(results[0].bboxes, results[1].bboxes) and torch.equal(results[0].scores, results[1].scores)


def test_decoder_without_intermediate_results(wide):
    cfg = wide(DINO, 128)
    decoder = MODELS.build(dict(cfg.decoder, type='LiteDinoDecoder', layer_cfg=ordinary(cfg.decoder.layer_cfg)))
    decoder.return_intermediate = False
    inputs = dict(
        query=torch.rand(1, 5, 128),
        value=torch.rand(1, 85, 128),
        key_padding_mask=None,
        self_attn_mask=None,
        reference_points=torch.rand(1, 5, 4),
        spatial_shapes=torch.tensor([[8, 8], [4, 4], [2, 2], [1, 1]]),
        level_start_index=torch.tensor([0, 64, 80, 84]),
        valid_ratios=torch.ones(1, 4, 2),
        reg_branches=torch.nn.ModuleList([torch.nn.Linear(128, 4) for _ in range(3)]),
    )
    query, boxes = decoder(**inputs)
    assert query.shape == (1, 5, 128) and boxes.shape == (1, 5, 4) and not boxes.requires_grad
    decoder.return_intermediate = True
    hidden_states, references = decoder(**inputs)
    assert hidden_states.shape == (2, 1, 5, 128) and references.shape == (3, 1, 5, 4)
    assert torch.equal(decoder.norm(query), hidden_states[-1]) and torch.equal(boxes, references[-1])


def ordinary(layer_cfg):
    layer_cfg = copy.deepcopy(layer_cfg)
    layer_cfg.cross_attn_cfg.pop('type')
    return layer_cfg


@pytest.mark.parametrize(
    'key', ['bbox_head.embed_dims', 'positional_encoding.num_feats', 'decoder.layer_cfg.ffn_cfg.embed_dims']
)
def test_widths_that_differ(wide, key):
    cfg = wide(DINO, 128)
    *parts, leaf = key.split('.')
    place = cfg
    for part in parts:
        place = place[part]
    place[leaf] = 256
    with pytest.raises((ValueError, AssertionError), match=r'same width|num_feats'):
        MODELS.build(cfg)


def test_width_that_has_no_sine_embedding(wide):
    cfg = wide(DINO, 128)
    with pytest.raises(ValueError, match="the decoder's embed_dims must be a multiple of 4, got 126"):
        layer_cfg = ordinary(cfg.decoder.layer_cfg)
        for name in ('self_attn_cfg', 'cross_attn_cfg', 'ffn_cfg'):
            layer_cfg[name].embed_dims = 126
            layer_cfg[name].update({} if name == 'ffn_cfg' else dict(num_heads=6))
        LiteDinoDecoder(num_layers=1, layer_cfg=layer_cfg, post_norm_cfg=None)
