"""Small detectors of every host that can be exported, and one as a file."""

import json
import os

import pytest
import torch
from filelock import FileLock
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from lite_detr_mmdet.export import ImageFormat, export_onnx
from lite_detr_mmdet.zoo import get_config

SMALL = dict(
    num_queries=20,
    test_cfg=dict(max_per_img=10),
    backbone=dict(depth=18, frozen_stages=-1, init_cfg=None),
    neck=dict(in_channels=[128, 256, 512]),
    encoder=dict(num_layers=1, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=64))),
    decoder=dict(num_layers=2, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=64))),
)
LITE_DINO = 'lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco'
DEFORMABLE = 'lite-deformable-detr_h3l1-2p1x3_r50_16xb2-50e_coco'
CLASSES = [f'class {number}' for number in range(80)]
# Name -> config, what is changed in it
DETECTORS = {
    'joint': (LITE_DINO, {}),
    'none': (
        LITE_DINO,
        dict(
            encoder=dict(low_level_update='none'),
            decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=3))),
        ),
    ),
    'sequential': (LITE_DINO, dict(encoder=dict(low_level_update='sequential', num_layers=2))),
    'separate_key': (LITE_DINO, dict(encoder=dict(layer_cfg=dict(self_attn_cfg=dict(key_proj=True))))),
    'shared_offsets': (LITE_DINO, dict(encoder=dict(layer_cfg=dict(self_attn_cfg=dict(shared_offsets=True))))),
    'ordinary': ('lite-dino-4scale_h3l1-2p1x3-msda_r50_8xb2-36e_coco', {}),
    'dino': ('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', {}),
    'two_stage': (DEFORMABLE, {}),
    'one_stage': (DEFORMABLE, dict(as_two_stage=False, with_box_refine=False)),
    'one_stage_refined': (DEFORMABLE, dict(as_two_stage=False)),
    'deformable_detr': ('mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py', {}),
    'h_detr': ('h-detr_r50_8xb2-12e_coco', dict(num_queries_one2many=40)),
    'lite_h_detr': ('lite-h-detr_h3l1-2p1x3_r50_8xb2-36e_coco', dict(num_queries_one2many=40)),
}


def small_config(name: str):
    config, changes = DETECTORS[name]
    cfg = get_config(config)
    cfg.merge_from_dict(dict(model=SMALL))
    if 'num_blocks' in cfg.model.encoder:
        cfg.model.encoder.num_blocks = 1
    cfg.merge_from_dict(dict(model=changes))
    return cfg


@pytest.fixture(scope='session')
def detector():
    """Make a small detector, once: weights are far enough from their initial values for boxes and scores to differ."""
    made = {}

    def make(name: str):
        if name not in made:
            init_default_scope('mmdet')
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = MODELS.build(small_config(name).model)
                model.init_weights()
                for parameter in model.parameters():
                    parameter.data.add_(torch.randn_like(parameter) * 0.02)
            made[name] = model.eval()
        return made[name]

    return make


@pytest.fixture(scope='session')
def exported(detector, tmp_path_factory):
    """A verified file for images of 96 x 128 pixels, and what verification found; made once for all processes."""
    for name in ('onnx', 'onnxscript', 'onnxslim', 'onnxruntime'):
        pytest.importorskip(name, reason=f'{name} is not installed: pip install -r requirements/export.txt')
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / 'exported'
    path, report = folder / 'model.onnx', folder.with_suffix('.txt')
    with FileLock(folder.with_suffix('.lock')):
        if not report.is_file():
            folder.mkdir()
            metadata = dict(config='small', classes=json.dumps(CLASSES))
            report.write_text(str(export_onnx(detector('joint'), path, ImageFormat(96, 128), metadata=metadata)))
    return path, report.read_text()
