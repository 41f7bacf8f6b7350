"""Fixtures of tests that build detectors: small ones, and images with ground truth."""

import copy
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Iterator, Optional, Sequence, Tuple

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config

from . import language_model  # noqa: F401  registers a text encoder

ROOT = Path(__file__).resolve().parents[2]
FFN_CHANNELS = 64  # of tiny configs


@cache
def _config(path: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / path)


def read_config(path: str) -> Config:
    """A config of ``configs/``; mmengine takes as long to read one as a small model for a training step."""
    return copy.deepcopy(_config(path))


@contextmanager
def without_initial_values() -> Iterator[None]:
    """Let modules that are built here have any values: drawing those of a large model takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ('normal_', 'uniform_'):
            patch.setattr(torch.Tensor, name, lambda tensor, *args, **kwargs: tensor)
        yield


def narrow_ffns(cfg: Config) -> None:
    """Make the feed-forward networks of all layers narrow."""
    for part in [cfg.get('encoder'), cfg.get('decoder')]:
        if part is not None and 'layer_cfg' in part and 'ffn_cfg' in part.layer_cfg:
            part.layer_cfg.ffn_cfg.feedforward_channels = FFN_CHANNELS


@pytest.fixture
def tiny_config():
    """Read a config of ``configs/`` and make it small enough for one training step on a small image."""

    def read(path: str, num_queries: int = 20, decoder_layers: Optional[int] = None) -> Config:
        cfg = read_config(path)
        narrow_ffns(cfg.model)
        if 'panoptic_head' in cfg.model:
            cfg.model.panoptic_head.num_queries = num_queries
            narrow_ffns(cfg.model.panoptic_head.pixel_decoder)
            cfg.model.data_preprocessor.batch_augments = None  # pads to 1024x1024
            cfg.model.train_cfg.num_points = 100
            cfg.model.test_cfg.max_per_image = 10
        else:
            cfg.model.num_queries = num_queries
            cfg.model.test_cfg.max_per_img = 10
        if 'language_model' in cfg.model:
            cfg.model.language_model = dict(type='RandomLanguageModel')
        if cfg.model.get('num_queries_one2many'):
            cfg.model.num_queries_one2many = 2 * num_queries
        cfg.model.backbone.init_cfg = None  # no download
        if decoder_layers is not None and 'decoder' in cfg.model:
            cfg.model.decoder.num_layers = decoder_layers
        if cfg.model.backbone.type == 'SwinTransformer':
            cfg.model.backbone.depths = [1, 1, 1, 1]
        elif cfg.model.backbone.get('depth') == 50:
            cfg.model.backbone.depth = 18
            user = cfg.model.get('neck', cfg.model.get('panoptic_head'))
            user.in_channels = [channels // 4 for channels in user.in_channels]
        return cfg

    return read


@pytest.fixture
def batch():
    """Make images with ground truth as a dataloader would: ``num_boxes`` lists the boxes of each image."""

    def make(num_boxes: Sequence[int] = (3, 1), size: Tuple[int, int] = (128, 160), num_classes: int = 3) -> dict:
        data = demo_mm_inputs(
            batch_size=len(num_boxes),
            # The last image is smaller than the first, so that there is padding.
            image_shapes=[(3, size[0] - 16 * index, size[1] - 32 * index) for index in range(len(num_boxes))],
            num_items=list(num_boxes),
            num_classes=num_classes,
            with_mask=True,
            texts=[('ant', 'brown bear', 'cat')] * len(num_boxes),
            custom_entities=True,
        )
        for sample in data['data_samples']:
            boxes = sample.gt_instances.bboxes
            sample.gt_instances.bboxes = boxes.tensor if hasattr(boxes, 'tensor') else boxes
        return data

    return make
