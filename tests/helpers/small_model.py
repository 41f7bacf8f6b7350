"""A small model with weights."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from lite_detr_mmdet.zoo import find_config

SHAPES = 'lite_detr_mmdet::lite_dino/lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes.py'


@pytest.fixture(scope='session')
def small_config(tmp_path_factory):
    """Config file of a small model."""
    path = tmp_path_factory.mktemp('config') / 'small.py'
    cfg = Config.fromfile(find_config(SHAPES))
    cfg.merge_from_dict(
        {
            'model.num_queries': 10,
            'model.test_cfg.max_per_img': 10,
            'model.backbone.base_channels': 8,
            'model.neck.in_channels': [16, 32, 64],
            'model.decoder.num_layers': 1,
        }
    )
    for dataloader in (cfg.test_dataloader, cfg.val_dataloader):
        dataloader.dataset.pipeline[1].scale = (64, 64)
    cfg.dump(path)
    return path


@pytest.fixture(scope='session')
def checkpoint(small_config):
    """Checkpoint of the small model, as training saves it."""
    cfg = Config.fromfile(small_config)
    model = MODELS.build(cfg.model)
    model.init_weights()
    classes = ('disc', 'rectangle', 'triangle')
    meta = dict(dataset_meta=dict(CLASSES=classes), cfg=Config.fromfile(small_config).pretty_text)
    path = small_config.with_name('checkpoint.pth')
    torch.save(dict(meta=meta, state_dict=model.state_dict(), optimizer=dict(state={})), path)
    return path
