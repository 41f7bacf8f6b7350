"""Every shipped config builds, is what its name says, trains a step and predicts."""

import re
from pathlib import Path

import pytest
import torch
from helpers.detectors import read_config, without_initial_values
from mmdet.registry import MODELS
from mmengine.config import Config

import lite_detr_mmdet  # noqa: F401
from lite_detr_mmdet.models.detectors import HDETR
from lite_detr_mmdet.models.layers import FusedMultiScaleDeformableAttention, KeyAwareDeformableAttention, LiteEncoder

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
# The algorithm of a name and the detector that it builds; those that begin with 'lite-' are Lite detectors.
DETECTORS = {
    'dino': 'DINO',
    'lite-dino': 'LiteDINO',
    'deformable-detr-refine-twostage': 'DeformableDETR',
    'lite-deformable-detr': 'LiteDeformableDETR',
    'lite-ddq-detr': 'LiteDDQDETR',
    'h-detr': 'HDETR',
    'lite-h-detr': 'LiteHDETR',
    'lite-grounding-dino': 'LiteGroundingDINO',
    'lite-mask2former': 'Mask2Former',
}
NAME = re.compile(
    rf'(?P<algorithm>{"|".join(DETECTORS)})(-(?P<scales>\d)scale)?'
    r'(_(h(?P<high>\d)l(?P<low>\d)-(?P<updates>\d)p(?P<closing>[01])x(?P<blocks>\d)|(?P<variant>kda|o2o))'
    r'(?P<suffix>-msda|-seq|-tied)?)?'
    r'_(?P<backbone>efficientnet-lite0|r18|r50|swin-t|swin-l)'
    r'_(?P<gpus>\d+)xb(?P<batch>\d+)-(lsj-)?(?P<epochs>\d+)e_(?P<dataset>coco|shapes|bccd|hit-uav)'
)
BACKBONES = {
    'efficientnet-lite0': ('EfficientNetLite', 'out_indices', (3, 4, 5)),
    'r18': ('ResNet', 'depth', 18),
    'r50': ('ResNet', 'depth', 50),
    'swin-t': ('SwinTransformer', 'num_features', [96, 192, 384, 768]),
    'swin-l': ('SwinTransformer', 'num_features', [192, 384, 768, 1536]),
}
# Epochs after which the learning rate drops; mmdet's DINO with Swin-L has a schedule of its own.
DROPS = {12: [11], 24: [20], 36: [30], 46: [30], 50: [40], ('swin-l', 36): [27, 33]}
NUM_CLASSES = {'coco': 80, 'shapes': 3, 'bccd': 3, 'hit-uav': 3}


def test_names_are_unique_in_the_package():
    stems = [Path(file).stem for file in FILES]
    assert stems and len(set(stems)) == len(stems)
    assert all(stem == stem.lower() for stem in stems)


@pytest.mark.parametrize('file', FILES)
def test_name_says_what_is_built(file):
    match = NAME.fullmatch(Path(file).stem)
    assert match, 'the name does not follow the scheme'
    name = match.groupdict()
    cfg = read_config(file)
    if 'language_model' in cfg.model:
        cfg.model.language_model = dict(type='RandomLanguageModel')
    with without_initial_values():
        model = MODELS.build(cfg.model)
    mask_head = getattr(model, 'panoptic_head', None)
    encoder = mask_head.pixel_decoder.encoder if mask_head else model.encoder

    # mmdet's DINO works at 256 channels only; without low-level tokens LiteDINO is the same at any width.
    is_narrow_dino = name['algorithm'] == 'dino' and name['backbone'] == 'efficientnet-lite0'
    assert type(model).__name__ == ('LiteDINO' if is_narrow_dino else DETECTORS[name['algorithm']])
    if not mask_head:
        assert model.num_feature_levels == cfg.model.neck.num_outs == int(name['scales'] or 4)
        assert model.neck.convs[0].conv.bias is not None
    backbone, key, value = BACKBONES[name['backbone']]
    assert type(model.backbone).__name__ == backbone and getattr(model.backbone, key) == value
    if 'dino' in name['algorithm'].split('-')[:2]:  # the same head in all rows of a table
        assert type(model.bbox_head).__name__ == 'LiteDINOHead'
        assert model.bbox_head.tied_branches == (name['suffix'] == '-tied')
    assert (mask_head or model.bbox_head).num_classes == NUM_CLASSES[name['dataset']]

    attention = [layer.self_attn for layer in encoder.layers]
    attention += [] if mask_head else [layer.cross_attn for layer in model.decoder.layers]
    key_aware = name['algorithm'].startswith('lite-') and name['suffix'] != '-msda'
    assert all(isinstance(module, KeyAwareDeformableAttention) == key_aware for module in attention)
    # Ordinary attention is fused: by its type in Lite detectors, by a hook in those that build mmcv's class.
    by_type = type(model).__name__.startswith('Lite')
    if by_type and not key_aware:
        assert all(type(module) is FusedMultiScaleDeformableAttention for module in attention)
    assert by_type or mask_head or dict(type='FusedAttentionHook') in cfg.custom_hooks

    if name['blocks']:
        assert isinstance(encoder, LiteEncoder)
        assert encoder.num_low_levels == int(name['low'])
        assert encoder.num_levels - encoder.num_low_levels == int(name['high'])
        assert encoder.num_blocks == int(name['blocks'])
        sequential = name['suffix'] == '-seq'
        assert len(encoder.layers) == (int(name['updates']) + sequential) * int(name['blocks'])
        update = 'sequential' if sequential else ('joint' if name['closing'] == '1' else 'none')
        assert encoder.low_level_update == update
        closing = [hasattr(layer, 'low_level_ffn') for layer in encoder.layers]
        assert sum(closing) == int(name['closing']) * int(name['blocks'])
    else:
        assert not any(hasattr(layer, 'low_level_ffn') for layer in encoder.layers)

    if isinstance(model, HDETR):
        assert (model.num_queries, model.num_queries_one2many) == (300, 0 if name['variant'] == 'o2o' else 1500)
        assert (model.bbox_head.k_one2many, model.bbox_head.lambda_one2many) == (6, 1.0)

    batch_size = int(name['gpus']) * int(name['batch'])
    assert cfg.train_dataloader.batch_size == int(name['batch'])
    assert cfg.auto_scale_lr.base_batch_size == batch_size
    epochs = int(name['epochs'])
    if mask_head:
        assert cfg.train_cfg.max_iters == cfg.param_scheduler.end == epochs * 118000 // batch_size  # images of COCO
        return
    assert cfg.train_cfg.max_epochs == epochs
    if name['dataset'] == 'coco':
        assert cfg.param_scheduler[-1].milestones == DROPS.get((name['backbone'], epochs), DROPS[epochs])
    assert cfg.param_scheduler[-1].end == epochs


@pytest.mark.process
@pytest.mark.parametrize('file', FILES)
def test_trains_a_step_and_predicts(file, tiny_config, batch):
    model = MODELS.build(tiny_config(file, decoder_layers=2).model)
    model.init_weights()
    data = model.data_preprocessor(batch((2,)), training=True)
    loss, log = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert all(torch.isfinite(value).all() for value in log.values())
    without = [name for name, param in model.named_parameters() if param.requires_grad and param.grad is None]
    assert without == []
    with torch.no_grad():
        predictions = model.eval().test_step(batch((2,)))[0].pred_instances
    assert len(predictions) == 10 and predictions.bboxes.isfinite().all()


def test_swin_t_as_released():
    """What the authors' config of Swin-T has other than their paper's text."""
    released = Config.fromfile(CONFIGS / 'lite_dino' / 'lite-dino-4scale_h3l1-2p1x3_swin-t_8xb2-46e_coco.py')
    assert released.train_cfg.max_epochs == 46 and released.param_scheduler[0].milestones == [30]
    assert released.model.dn_cfg.box_noise_scale == 0.4 and released.model.backbone.with_cp
