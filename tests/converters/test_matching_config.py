"""The config that is found for weights builds their model."""

from copy import deepcopy
from pathlib import Path

import pytest
from helpers.widths import set_width
from mmdet.registry import MODELS
from mmengine.config import Config

from lite_detr_mmdet.converters.matching_config import check_weights_fit, find_matching_config
from lite_detr_mmdet.converters.model_options import model_options
from lite_detr_mmdet.zoo import config_folder

# One config per model: recipes that differ only in epochs or classes have the same weights.
CONFIGS = [
    'h_detr/h-detr_r50_8xb2-36e_coco.py',
    'h_detr/h-detr_swin-t_8xb2-36e_coco.py',
    'deformable_detr/deformable-detr-refine-twostage-4scale_r50_16xb2-50e_coco.py',
    'lite_deformable_detr/lite-deformable-detr_h3l1-3p1x2_r50_16xb2-50e_coco.py',
    'lite_h_detr/lite-h-detr_h2l2-2p1x3_swin-t_8xb2-36e_coco.py',
    'lite_dino/lite-dino-3scale_kda_r50_8xb2-36e_coco.py',
    'lite_dino/lite-dino-4scale_h2l2-2p1x3-msda_r50_8xb2-36e_coco.py',
    'lite_dino/lite-dino-4scale_h2l2-2p1x3_swin-t_8xb2-36e_coco.py',
    'lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py',
    'lite_dino/lite-dino-4scale_h3l1-6p1x1_r50_8xb2-36e_coco.py',
]


LITE = 'lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py'


def read(name: str) -> Config:
    return Config.fromfile(config_folder() / name)


def weights_of(cfg: Config) -> dict:
    return MODELS.build(deepcopy(cfg.model)).state_dict()  # building changes the config


@pytest.mark.parametrize('name', CONFIGS)
def test_shipped_config_is_found(name):
    num_low_levels = read(name).model.encoder.get('num_low_levels')
    num_high_levels = None if num_low_levels is None else read(name).model.neck.num_outs - num_low_levels
    matching = find_matching_config(model_options(weights_of(read(name)), num_high_levels))
    assert matching.name == f'lite_detr_mmdet::{name}' and matching.options == {}
    assert matching.command_line() == '' and Path(matching.path).samefile(config_folder() / name)


def test_model_without_a_config_gets_options():
    cfg = read(LITE)
    cfg.merge_from_dict({'model.num_queries': 100, 'model.encoder.num_blocks': 2, 'model.backbone.depth': 101})
    weights = weights_of(cfg)
    matching = find_matching_config(model_options(weights, num_high_levels=3))
    assert matching.options == {
        'model.backbone.depth': 101,
        'model.num_queries': 100,
        'model.encoder.num_blocks': 2,
    }
    assert matching.command_line().startswith('--cfg-options model.backbone.depth=101')
    check_weights_fit(matching.read(), weights)
    del weights['level_embed']
    with pytest.raises(ValueError, match=r"missing=\['level_embed'\], extra=\[\], shapes=\[\]"):
        check_weights_fit(matching.read(), weights)


@pytest.mark.parametrize('width', [128, 192])
@pytest.mark.parametrize(
    'name, detector, num_high_levels',
    [
        (LITE, 'LiteDINO', 3),
        (LITE.replace('2p1x3', '2p1x3-msda'), 'LiteDINO', 3),
        ('lite_h_detr/lite-h-detr_h3l1-2p1x3_r50_8xb2-36e_coco.py', 'LiteHDETR', 3),
        ('deformable_detr/deformable-detr-refine-twostage-4scale_r50_16xb2-50e_coco.py', 'DeformableDETR', None),
    ],
)
def test_widths(name, detector, num_high_levels, width):
    cfg = read(name)
    small(cfg)
    set_width(cfg.model, width)
    weights = weights_of(cfg)
    matching = find_matching_config(model_options(weights, num_high_levels))
    found = matching.read()
    assert found.model.type == detector and found.model.bbox_head.embed_dims == width
    assert f'model.neck.out_channels={width}' in matching.command_line()
    check_weights_fit(found, weights)


def test_narrow_dino_is_a_lite_dino_without_low_levels():
    """mmdet's DINO cannot be built at other widths."""
    cfg = read('lite_dino/lite-dino-4scale_h3l1-2p1x3-msda_r50_8xb2-36e_coco.py')
    small(cfg)
    set_width(cfg.model, 128)
    cfg.model.encoder.num_low_levels = 0
    weights = weights_of(cfg)
    found = find_matching_config(model_options(weights)).read()
    assert found.model.type == 'LiteDINO' and found.model.encoder.num_low_levels == 0
    check_weights_fit(found, weights)


def small(cfg: Config) -> None:
    """Give a config a small backbone."""
    cfg.model.backbone.update(depth=18, base_channels=8)
    cfg.model.neck.in_channels = [16, 32, 64]


def test_lists_on_the_command_line():
    cfg = read('dino/dino-3scale_r50_8xb2-36e_coco.py')
    matching = find_matching_config(model_options(weights_of(cfg)))
    assert matching.name == 'lite_detr_mmdet::dino/dino-3scale_r50_8xb2-36e_coco.py'
    cfg.model.neck.in_channels = [1024, 4096]
    options = find_matching_config(model_options(weights_of(cfg))).command_line()
    assert 'model.neck.in_channels=[1024,4096]' in options


def test_stock_dino_gets_the_head_of_the_authors():
    cfg = read('dino/dino-4scale_r18_1xb4-12e_shapes.py')
    cfg.merge_from_dict({'model.backbone.depth': 50, 'model.neck.in_channels': [512, 1024, 2048]})
    matching = find_matching_config(model_options(weights_of(cfg)))
    assert matching.name == 'lite_detr_mmdet::dino/dino-4scale_r50_8xb2-36e_coco.py'
    assert matching.read().model.bbox_head.type == 'LiteDINOHead'
    assert matching.read().model.type == 'DINO'


@pytest.mark.parametrize(
    'options, arguments, message',
    [
        ({}, {}, r'must be 3 \(H3L1\) or 2 \(H2L2\): the weights fit both'),
        ({}, dict(num_high_levels=4), 'num_high_levels must be at least 1 and below 4, got 4'),
        ({}, dict(num_high_levels=3, num_queries=10), 'num_queries is only for H-DETR'),
        ({'model.encoder.num_low_levels': 0}, dict(num_high_levels=3), 'all levels are high levels'),
    ],
)
def test_bad_arguments(options, arguments, message):
    cfg = read(LITE)
    cfg.merge_from_dict(options)
    with pytest.raises(ValueError, match=message):
        model_options(weights_of(cfg), **arguments)
