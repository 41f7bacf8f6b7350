"""Names and values of converted weights, in both directions."""

import re

import pytest
import torch
from helpers.official_weights import golden_shapes, make_weight, make_weights
from mmdet.models.backbones.swin import swin_converter
from mmdet.registry import MODELS
from mmengine.config import Config

import lite_detr_mmdet  # noqa: F401
from lite_detr_mmdet.converters import mmdet_to_official, official_to_mmdet
from lite_detr_mmdet.converters.backbone_keys import backbone_to_mmdet, backbone_to_official
from lite_detr_mmdet.converters.class_rows import COCO_CATEGORY_IDS, rows_of_labels, select_rows, spread_rows

LITE = 'lite_detr_mmdet::lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py'
MSDA = 'lite_detr_mmdet::lite_dino/lite-dino-4scale_h3l1-2p1x3-msda_r50_8xb2-36e_coco.py'
SWIN = 'lite_detr_mmdet::lite_dino/lite-dino-4scale_h3l1-6p1x1_swin-t_8xb2-36e_coco.py'
H_DETR = 'lite_detr_mmdet::h_detr/h-detr_r50_8xb2-36e_coco.py'
H_DETR_SWIN = 'lite_detr_mmdet::h_detr/h-detr_swin-t_8xb2-36e_coco.py'
LITE_H_DETR = 'lite_detr_mmdet::lite_h_detr/lite-h-detr_h3l1-2p1x3_r50_8xb2-36e_coco.py'
LITE_DEFORMABLE = 'lite_detr_mmdet::lite_deformable_detr/lite-deformable-detr_h3l1-3p1x2_r50_16xb2-50e_coco.py'
DINO = 'mmdet::dino/dino-4scale_r50_8xb2-36e_coco.py'
DEFORMABLE = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
REFINE = 'mmdet::deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py'
TWO_STAGE = 'mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
CONFIGS = [LITE, MSDA, SWIN, H_DETR, H_DETR_SWIN, LITE_H_DETR, LITE_DEFORMABLE, DINO, DEFORMABLE, REFINE, TWO_STAGE]


@pytest.fixture
def weights_of(tmp_path):
    """Random weights of a config's model, with less backbone."""

    def make(name: str, **options) -> dict:
        path = tmp_path / 'config.py'
        path.write_text(f'_base_ = {name!r}')
        cfg = Config.fromfile(path)
        if cfg.model.backbone.type == 'ResNet':
            cfg.model.backbone.depth = 18
            cfg.model.neck.in_channels = [128, 256, 512]
        cfg.model.neck.bias = True
        cfg.merge_from_dict(options)
        state_dict = MODELS.build(cfg.model).state_dict()
        return {key: draw(key, value, state_dict) for key, value in state_dict.items()}

    def draw(key, value, state_dict):
        if not value.is_floating_point():
            return value
        if name_is_shared(key, state_dict):
            return make_weight(key.replace('branches.1', 'branches.0'), value.shape)
        return make_weight(key, value.shape)

    def name_is_shared(key, state_dict):
        return (
            'branches.1.' in key and state_dict[key].data_ptr() == state_dict[key.replace('.1.', '.0.', 1)].data_ptr()
        )

    return make


def assert_equal(result: dict, expected: dict) -> None:
    assert result.keys() == expected.keys(), result.keys() ^ expected.keys()
    for name in expected:
        assert torch.equal(result[name], expected[name]), name


@pytest.mark.parametrize('config', CONFIGS)
def test_there_and_back(weights_of, config):
    weights = weights_of(config)
    official, there = mmdet_to_official(weights, untied=True)
    back, report = official_to_mmdet(official)
    assert_equal(back, weights)
    assert set(there.mapped) | set(there.dropped) == set(weights)
    assert set(there.mapped.values()) | set(there.created) == set(official)
    assert set(report.mapped) | set(report.dropped) == set(official)
    assert set(report.mapped.values()) | set(report.created) == set(weights)


def test_official_names_of_lite_dino(weights_of):
    weights = weights_of(LITE, **{'model.backbone.depth': 50, 'model.neck.in_channels': [512, 1024, 2048]})
    official, _ = mmdet_to_official(weights, untied=True)
    expected = golden_shapes('official_lite_dino_h3l1_2p1x3_r50')
    expected['transformer.tgt_embed.weight'] = [900, 256]
    assert {name: list(tensor.shape) for name, tensor in official.items()} == expected


def test_every_weight_of_the_authors_is_accounted_for():
    shapes = golden_shapes('official_lite_dino_h3l1_2p1x3_r50')
    weights = make_weights(shapes)
    converted, report = official_to_mmdet(weights)
    assert set(report.mapped) | set(report.dropped) == set(shapes) and not set(report.mapped) & set(report.dropped)
    assert all(name.startswith(('transformer.decoder.bbox', 'transformer.decoder.class')) for name in report.dropped)
    assert all(name.endswith('num_batches_tracked') for name in report.created) and len(report.created) == 53
    back, _ = mmdet_to_official(converted)
    assert back.keys() == weights.keys()
    used = list(COCO_CATEGORY_IDS)
    for name, tensor in weights.items():
        rows = used if 'class_embed' in name or name == 'label_enc.weight' else slice(None)
        assert torch.equal(back[name][rows], tensor[rows]), name
    text = str(report)
    assert 'mapped   transformer.encoder.layers.1.linear12.weight -> encoder.layers.1.low_level_ffn.' in text
    assert 'class    row 90 -> label 79' in text and text.count('\ndropped') == len(report.dropped)


def test_dead_query_projections_are_dropped(weights_of):
    official, made = mmdet_to_official(weights_of(MSDA), untied=True)
    projections = [name for name in official if '.query_proj.' in name]
    assert len(projections) == 2 * (6 + 6) and set(projections) <= set(made.created)
    _, report = official_to_mmdet(official)
    assert all('not used' in report.dropped[name] for name in projections)


@pytest.mark.parametrize('config', [TWO_STAGE, H_DETR])
def test_two_stage_keeps_the_foreground_row(weights_of, config):
    official, _ = mmdet_to_official(weights_of(config))
    for index in range(7):
        official[f'class_embed.{index}.bias'] = torch.arange(91.0)
        official[f'transformer.decoder.class_embed.{index}.bias'] = torch.arange(91.0)
    converted, _ = official_to_mmdet(official)
    assert converted['bbox_head.cls_branches.5.bias'].tolist() == list(map(float, COCO_CATEGORY_IDS))
    assert converted['bbox_head.cls_branches.6.bias'].tolist() == [0.0, *map(float, COCO_CATEGORY_IDS[1:])]


def test_dino_maps_the_encoder_by_category_and_the_label_embedding(weights_of):
    official, _ = mmdet_to_official(weights_of(DINO), untied=True)
    assert official['label_enc.weight'].shape == (92, 256)
    official['transformer.enc_out_class_embed.bias'] = torch.arange(91.0)
    official['label_enc.weight'] = torch.arange(92.0)[:, None].expand(92, 256)
    converted, _ = official_to_mmdet(official)
    assert converted['bbox_head.cls_branches.6.bias'].tolist() == list(map(float, COCO_CATEGORY_IDS))
    embedding = converted['dn_query_generator.label_embedding.weight']
    assert embedding[:, 0].tolist() == list(map(float, COCO_CATEGORY_IDS))


@pytest.mark.parametrize('num_classes', [2, 3])
def test_other_classes(weights_of, num_classes):
    official, _ = mmdet_to_official(weights_of(DINO, **{'model.bbox_head.num_classes': 3}), untied=True)
    official['class_embed.0.bias'] = official['transformer.decoder.class_embed.0.bias'] = torch.arange(3.0)
    converted, report = official_to_mmdet(official, num_classes=num_classes)
    # As many rows as classes: ids count from 0; one row more: from 1, and row 0 was never trained.
    expected = [0, 1, 2] if num_classes == 3 else [1, 2]
    assert report.rows == expected
    assert converted['bbox_head.cls_branches.0.bias'].tolist() == expected
    assert converted['dn_query_generator.label_embedding.weight'].shape == (num_classes, 256)
    assert official_to_mmdet(official, category_ids=[2, 0])[1].rows == [2, 0]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(num_rows=91, num_classes=3), '91 rows for 3 classes: category_ids must say'),
        (dict(num_rows=4, category_ids=[1, 4]), r'different rows below 4, got \[1, 4\]'),
        (dict(num_rows=4, category_ids=[1, 1]), r'different rows below 4, got \[1, 1\]'),
        (dict(num_rows=4, category_ids=[1], num_classes=2), 'as many as the classes, got 1 and num_classes=2'),
    ],
)
def test_classes_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        rows_of_labels(**arguments)


def test_rows_without_a_label_look_untrained():
    bias = torch.tensor([5.0, 6.0])
    spread = spread_rows(bias, [2, 1], 4, is_bias=True)
    assert spread.tolist() == pytest.approx([-4.59512, 6, 5, -4.59512])
    assert torch.equal(select_rows(spread, [2, 1]), bias)
    foreground = spread_rows(bias, [2, 1], 4, foreground_first=True)
    assert foreground.tolist() == [5, 6, 0, 0]
    assert torch.equal(select_rows(foreground, [2, 1], foreground_first=True), bias)


@pytest.mark.parametrize('family', ['dino', 'h_detr'])
def test_swin_names_and_order(family):
    names = {
        'patch_embed.proj.weight': (96, 3, 4, 4),
        'patch_embed.norm.bias': (96,),
        'layers.0.blocks.1.attn.relative_position_bias_table': (169, 3),
        'layers.0.blocks.1.attn.qkv.weight': (288, 96),
        'layers.0.blocks.1.mlp.fc1.bias': (384,),
        'layers.0.blocks.1.mlp.fc2.weight': (96, 384),
        'layers.0.blocks.1.norm1.weight': (96,),
        'layers.0.downsample.reduction.weight': (192, 384),
        'layers.0.downsample.norm.bias': (384,),
        'norm3.weight': (768,),
    }
    prefix = 'backbone.0.' if family == 'dino' else 'backbone.0.body.'
    for name, shape in names.items():
        tensor = make_weight(name, shape)
        new_name, new_tensor = backbone_to_mmdet(prefix + name, tensor, 'swin')
        assert torch.equal(swin_converter({name: tensor})[new_name], new_tensor)
        old_name, old_tensor = backbone_to_official(new_name, new_tensor, 'swin', family)
        assert old_name == prefix + name and torch.equal(old_tensor, tensor)


def test_position_index_of_swin_is_that_of_mmdet():
    """The buffer is converted as it is, so the authors' formula must give mmdet's numbers."""
    window = 7
    grid = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing='ij')).flatten(1)
    relative = (grid[:, :, None] - grid[:, None]).permute(1, 2, 0) + window - 1
    expected = relative[..., 0] * (2 * window - 1) + relative[..., 1]
    backbone = MODELS.build(
        dict(type='SwinTransformer', depths=(1, 1), num_heads=(3, 6), strides=(4, 2), out_indices=(0,))
    )
    assert torch.equal(backbone.stages[0].blocks[0].attn.w_msa.relative_position_index, expected)


def test_weights_that_are_not_known(weights_of):
    with pytest.raises(ValueError, match=r'must be of DINO, H-DETR or Deformable DETR.*first names are head\.weight'):
        official_to_mmdet({'head.weight': torch.zeros(1)})
    with pytest.raises(ValueError, match='the first names are none'):
        mmdet_to_official({})
    weights = weights_of(LITE)
    official, _ = mmdet_to_official(weights, untied=True)
    with pytest.raises(ValueError, match=r'1 names that no rule translates: transformer\.strange'):
        official_to_mmdet({**official, 'transformer.strange': torch.zeros(1)})
    with pytest.raises(ValueError, match=r'no place for 1 of the weights: neck\.strange'):
        mmdet_to_official({**weights, 'neck.strange': torch.zeros(1)}, untied=True)
    official['transformer.decoder.class_embed.0.bias'] = torch.zeros(91)
    with pytest.raises(ValueError, match=r'must be the same weight as class_embed\.0\.bias'):
        official_to_mmdet(official)


@pytest.mark.parametrize('config', [LITE, DINO])
def test_untied_branches(weights_of, config):
    """The authors' DINO shares the branches of its decoder layers: others would silently lose all but one."""
    weights = weights_of(config)
    with pytest.raises(
        ValueError, match=r'branches differ .* only one of them would be kept.*--untied.*embed_share=False'
    ):
        mmdet_to_official(weights)
    official, report = mmdet_to_official(weights, untied=True)
    assert report.options == ('dec_pred_class_embed_share=False', 'dec_pred_bbox_embed_share=False')
    assert all(f'option   {option}' in str(report) for option in report.options)
    for layer in range(6):
        assert torch.equal(
            official[f'bbox_embed.{layer}.layers.0.weight'], weights[f'bbox_head.reg_branches.{layer}.0.weight']
        )
    assert not torch.equal(official['class_embed.0.weight'], official['class_embed.5.weight'])


def test_tied_branches_need_no_option(weights_of):
    weights = weights_of(LITE, **{'model.bbox_head.tied_branches': True})
    for name in weights:
        match = re.match(r'(bbox_head\.\w+_branches)\.[1-5]\.(.+)', name)
        if match:
            weights[name] = weights[f'{match[1]}.0.{match[2]}']
    official, report = mmdet_to_official(weights)
    assert report.options == () and 'option' not in str(report)
    assert torch.equal(official['class_embed.0.weight'], official['class_embed.5.weight'])


def test_branches_of_h_detr_are_the_authors_own(weights_of):
    assert mmdet_to_official(weights_of(H_DETR))[1].options == ()


def test_backbone_that_the_authors_do_not_have(weights_of):
    weights = {name: tensor for name, tensor in weights_of(LITE).items() if not name.startswith('backbone.')}
    with pytest.raises(ValueError, match='must be a ResNet or a Swin'):
        mmdet_to_official({**weights, 'backbone.layers.0.conv.weight': torch.zeros(1)}, untied=True)
