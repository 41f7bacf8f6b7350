"""What is compared: detectors that differ in encoder and attention alone, on one backbone and one schedule.

The models follow the rows of Tables 1, 4 and 5 of the paper; data and recipe are small enough for hours, not days.
"""

import copy
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Optional

from mmengine.config import Config

from lite_detr_mmdet.zoo import get_config

BASES = dict(
    shapes='dino-4scale_r18_1xb4-12e_shapes',
    bccd='lite-dino-4scale_h3l1-2p1x3_efficientnet-lite0_1xb2-8e_bccd',
    hit_uav='lite-dino-4scale_h3l1-2p1x3_efficientnet-lite0_1xb2-3e_hit-uav',
    hit_uav_tiles='lite-dino-4scale_h3l1-2p1x3_efficientnet-lite0_1xb2-3e_hit-uav',  # accuracy_tiles.py has cut them
)
ROOT_VARIABLES = dict(bccd='BCCD_ROOT', hit_uav='HIT_UAV_ROOT', hit_uav_tiles='HIT_UAV_ROOT')
NEEDS_DATA_ROOT = ('hit_uav_tiles',)  # no config names their folder
BASELINE, LITE, SMALLER = 'dino-4scale', 'lite-dino_h3l1-2p1x3', 'dino-3scale'
KEY_AWARE, ORDINARY = 'KeyAwareDeformableAttention', 'FusedMultiScaleDeformableAttention'


@dataclass(frozen=True)
class Variant:
    """What distinguishes a model: attention, feature levels, and settings of the encoder.

    All are ``LiteDINO`` with one head. Without low-level tokens and with ordinary attention that is mmdet's DINO, bit
    for bit.
    """

    attention: str = KEY_AWARE
    num_levels: int = 4
    encoder: Dict[str, Any] = field(default_factory=lambda: dict(num_blocks=3, num_low_levels=1))

    def apply(self, cfg: Config) -> None:
        """Change the model of a config into this one."""
        attention = dict(type=self.attention, num_levels=self.num_levels)
        model = dict(
            type='LiteDINO',
            num_feature_levels=self.num_levels,
            encoder=dict(type='LiteEncoder', layer_cfg=dict(self_attn_cfg=attention), **self.encoder),
            decoder=dict(layer_cfg=dict(cross_attn_cfg=attention)),
            bbox_head=dict(type='LiteDINOHead'),
        )
        if self.num_levels == 3:  # without the highest resolution
            model['backbone'] = dict(out_indices=cfg.model.backbone.out_indices[1:])
            model['neck'] = dict(in_channels=cfg.model.neck.in_channels[1:], num_outs=3)
        cfg.merge_from_dict(dict(model=model))


STOCK_ENCODER = dict(num_blocks=1, num_low_levels=0)
# In the order of importance.
MODELS = {
    BASELINE: Variant(ORDINARY, encoder=STOCK_ENCODER),
    LITE: Variant(),
    SMALLER: Variant(ORDINARY, 3, STOCK_ENCODER),
    'lite-dino_h3l1-2p1x3-msda': Variant(ORDINARY),
    'lite-dino_h2l2-2p1x3': Variant(encoder=dict(num_blocks=3, num_low_levels=2)),
    'lite-dino_h3l1-6p1x1': Variant(encoder=dict(num_blocks=1, num_low_levels=1)),
    'lite-dino_h3l1-2p1x3-seq': Variant(
        encoder=dict(num_layers=9, num_blocks=3, num_low_levels=1, low_level_update='sequential')
    ),
}

# One recipe for all models of a data set. An epoch is one of ``parts`` parts of a pass over the data, a checkpoint is
# written every ``save_every`` epochs, validation (0: none) is every ``validate_every``, and ``size`` is the side
# of the generated images.
RECIPES = dict(
    shapes=dict(
        epochs=20, parts=10, save_every=1, validate_every=0, batch_size=16, lr=4e-4, num_queries=150, size=256
    ),
    bccd=dict(epochs=8, parts=1, save_every=1, validate_every=2, batch_size=2, lr=4e-4, num_queries=100),
    hit_uav=dict(epochs=3, parts=1, save_every=1, validate_every=1, batch_size=2, lr=4e-4, num_queries=100),
    hit_uav_tiles=dict(epochs=3, parts=1, save_every=1, validate_every=1, batch_size=2, lr=4e-4, num_queries=300),
)


def make_config(
    dataset: str, model: str, seed: int, data_root: Optional[Path] = None, recipe: Optional[dict] = None
) -> Config:
    """Config of one training run.

    Args:
        dataset (str): 'shapes', what tools/dataset_converters/generate_shapes.py wrote, 'bccd', 'hit_uav' or
            'hit_uav_tiles', what accuracy_tiles.py wrote.
        model (str): A name of ``MODELS``.
        seed (int): Seed of weights, order and augmentation.
        data_root (Path, optional): Folder of the data; by default where the configs of ``configs/`` have it. Tiles
            have no default.
        recipe (dict, optional): Overrides of ``RECIPES[dataset]``.

    Returns:
        Config: Of training, validation where the recipe has one, and testing.

    Raises:
        ValueError: If ``data_root`` is needed and not given.
    """
    recipe = {**RECIPES[dataset], **(recipe or {})}
    if dataset in NEEDS_DATA_ROOT and data_root is None:
        raise ValueError(f'{dataset} needs data_root, the folder that accuracy_tiles.py has written')
    if dataset in ROOT_VARIABLES and data_root is not None:
        os.environ[ROOT_VARIABLES[dataset]] = str(data_root)
    cfg = get_config(BASES[dataset])
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.batch_size = recipe['batch_size']
    if dataset == 'shapes':
        adapt_shapes(cfg, data_root, recipe['size'])
    cfg.merge_from_dict(
        dict(
            model=dict(
                num_queries=recipe['num_queries'],
                test_cfg=dict(max_per_img=recipe['num_queries']),
                encoder=dict(num_layers=6),
            ),
            optim_wrapper=dict(optimizer=dict(lr=recipe['lr'])),
            train_cfg=dict(max_epochs=recipe['epochs'], val_interval=recipe['validate_every'] or 1),
            randomness=dict(seed=seed),
            auto_scale_lr=dict(base_batch_size=recipe['batch_size']),
            default_hooks=dict(checkpoint=dict(interval=recipe['save_every'])),
            custom_imports=dict(imports=['lite_detr_mmdet', 'part_sampler']),
            train_dataloader=dict(sampler=dict(_delete_=True, type='PartSampler', parts=recipe['parts'])),
        )
    )
    MODELS[model].apply(cfg)
    if not recipe['validate_every']:
        cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cosine = cfg.param_scheduler[-1]
    cosine.end = cosine.T_max = recipe['epochs']
    return cfg


def adapt_shapes(cfg: Config, data_root: Optional[Path], size: int) -> None:
    """Settings of the generated images, which are tested on the validation images."""
    cfg.test_dataloader.dataset.pipeline[1].scale = (size,) * 2
    cfg.model.dn_cfg.group_cfg.num_dn_queries = 100
    cfg.model.decoder.num_layers = 3
    if data_root is not None:
        cfg.train_dataloader.dataset.data_root = cfg.test_dataloader.dataset.data_root = f'{data_root}/'
        cfg.test_evaluator.ann_file = f'{data_root}/annotations/val.json'


def fingerprint(cfg: Config) -> str:
    """Short digest of what decides the result of a run, paths apart: results of other settings are not mixed in."""
    parts = {name: cfg[name] for name in ('optim_wrapper', 'param_scheduler', 'randomness')}
    parts['model'] = copy.deepcopy(cfg.model)
    if not parts['model'].encoder.get('num_low_levels', 1):
        parts['model'].encoder.pop('low_level_ffn_ratio', None)  # there are no low-level tokens
    parts['epochs'] = cfg.train_cfg.max_epochs  # how often it is validated changes nothing
    parts['train_dataloader'] = [cfg.train_dataloader[name] for name in ('batch_size', 'sampler')]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]
