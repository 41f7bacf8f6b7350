"""What is compared: detectors that differ in encoder and attention alone, on one backbone and one schedule.

The models follow the rows of Tables 1, 4 and 5 of the paper; data and recipe are small enough for hours, not days.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Optional

from mmengine.config import Config

from lite_detr_mmdet.zoo import get_config

BASE = 'dino-4scale_r18_1xb4-12e_shapes'
BCCD = 'lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_bccd'
BASELINE, LITE, SMALLER = 'dino-4scale', 'lite-dino_h3l1-2p1x3', 'dino-3scale'


def lite(attention: str = 'KeyAwareDeformableAttention', **encoder) -> dict:
    """Settings of Lite-DINO H3L1-(2+1)x3, those of the encoder overridden by ``encoder``."""
    return dict(
        type='LiteDINO',
        encoder={
            **dict(type='LiteEncoder', num_blocks=3, num_low_levels=1),
            **dict(layer_cfg=dict(self_attn_cfg=dict(type=attention))),
            **encoder,
        },
        decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(type=attention))),
    )


# Settings of ``model`` beyond those of DINO with four levels, in the order of importance.
MODELS = {
    BASELINE: dict(),
    LITE: lite(),
    SMALLER: dict(
        num_feature_levels=3,
        backbone=dict(out_indices=(2, 3)),
        neck=dict(in_channels=[256, 512], num_outs=3),
        encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=3))),
        decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=3))),
    ),
    'lite-dino_h3l1-2p1x3-msda': lite('MultiScaleDeformableAttention'),
    'lite-dino_h2l2-2p1x3': lite(num_low_levels=2),
    'lite-dino_h3l1-6p1x1': lite(num_blocks=1),
    'lite-dino_h3l1-2p1x3-seq': lite(num_layers=9, low_level_update='sequential'),
}

# One recipe for all models of a data set. An epoch is one of ``parts`` parts of a pass over the data, a checkpoint is
# written every ``save_every`` epochs, and ``size`` is the side of the generated images.
RECIPES = dict(
    shapes=dict(epochs=20, parts=10, save_every=1, batch_size=16, lr=4e-4, num_queries=150, size=256),
    bccd=dict(epochs=60, parts=1, save_every=5, batch_size=8, lr=3e-4, num_queries=100),
)


def make_config(
    dataset: str, model: str, seed: int, data_root: Optional[Path] = None, recipe: Optional[dict] = None
) -> Config:
    """Config of one training run.

    Args:
        dataset (str): 'shapes', what tools/dataset_converters/generate_shapes.py wrote, or 'bccd'.
        model (str): A name of ``MODELS``.
        seed (int): Seed of weights, order and augmentation.
        data_root (Path, optional): Folder of the data; by default where the configs of ``configs/`` have it.
        recipe (dict, optional): Overrides of ``RECIPES[dataset]``.

    Returns:
        Config: Of training and testing; there is no validation in between.
    """
    recipe = {**RECIPES[dataset], **(recipe or {})}
    if dataset == 'bccd' and data_root is not None:
        os.environ['BCCD_ROOT'] = str(data_root)
    cfg = get_config(BASE)
    data = get_config(BCCD) if dataset == 'bccd' else cfg
    cfg.train_dataloader, cfg.test_dataloader = data.train_dataloader, data.test_dataloader
    cfg.test_evaluator = data.test_evaluator
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.batch_size = recipe['batch_size']
        if dataset == 'shapes' and data_root is not None:
            loader.dataset.data_root = f'{data_root}/'
            cfg.test_evaluator.ann_file = f'{data_root}/annotations/val.json'
    if dataset == 'shapes':
        cfg.test_dataloader.dataset.pipeline[1].scale = (recipe['size'],) * 2
    cfg.merge_from_dict(
        dict(
            model=dict(
                num_queries=recipe['num_queries'],
                test_cfg=dict(max_per_img=recipe['num_queries']),
                dn_cfg=dict(group_cfg=dict(num_dn_queries=100)),
                encoder=dict(num_layers=6),
                decoder=dict(num_layers=3),
            ),
            optim_wrapper=dict(optimizer=dict(lr=recipe['lr'])),
            train_cfg=dict(max_epochs=recipe['epochs']),
            randomness=dict(seed=seed),
            auto_scale_lr=dict(base_batch_size=recipe['batch_size']),
            default_hooks=dict(checkpoint=dict(interval=recipe['save_every'])),
            custom_imports=dict(imports=['lite_detr_mmdet', 'part_sampler']),
            train_dataloader=dict(sampler=dict(_delete_=True, type='PartSampler', parts=recipe['parts'])),
        )
    )
    cfg.merge_from_dict(dict(model=MODELS[model]))
    cosine = cfg.param_scheduler[-1]
    cosine.end = cosine.T_max = recipe['epochs']
    return cfg


def fingerprint(cfg: Config) -> str:
    """Short digest of what decides the result of a run, paths apart: results of other settings are not mixed in."""
    parts = {name: cfg[name] for name in ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness')}
    parts['train_dataloader'] = [cfg.train_dataloader[name] for name in ('batch_size', 'sampler')]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]
