"""Tokens of an image by its size, and hosts that need as many as they have queries."""

import pytest
import torch
from mmdet.registry import MODELS

from lite_detr_mmdet import accelerate
from lite_detr_mmdet.analysis.calls import detector_call, make_batch, training_call
from lite_detr_mmdet.models.detectors.tokens import check_num_tokens, level_shapes
from lite_detr_mmdet.zoo import get_config

STOCK = 'dino-4scale_r18_1xb4-12e_shapes'
LITE = 'lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes'
TWO_STAGE = 'deformable-detr-refine-twostage-4scale_r50_16xb2-50e_coco'
SHAPE = (64, 96)  # 8x12, 4x6, 2x3 and 1x2 tokens
NUM_TOKENS = 128


def build(name: str, num_queries: int, **changes) -> torch.nn.Module:
    cfg = get_config(name).model
    cfg.backbone.init_cfg = None
    cfg.update(num_queries=num_queries, **changes)
    return MODELS.build(cfg).eval()


def test_levels_are_those_that_are_computed():
    model = build(LITE, 10)
    with torch.no_grad():
        feats = model.extract_feat(torch.zeros(1, 3, 65, 97))
    assert level_shapes(model, 65, 97) == [tuple(feat.shape[-2:]) for feat in feats]
    assert sum(height * width for height, width in level_shapes(model, *SHAPE)) == NUM_TOKENS
    accelerate(model, verbose=False)
    assert level_shapes(model, 65, 97) == [tuple(feat.shape[-2:]) for feat in feats]


@pytest.mark.parametrize('name', [STOCK, TWO_STAGE])
def test_too_few_tokens_are_refused(name):
    model, batch = build(name, NUM_TOKENS + 1), make_batch(1, SHAPE, 'cpu')
    with torch.no_grad(), pytest.raises(RuntimeError, match='out of range'):  # what the check spares
        model(**batch, mode='predict')
    message = rf'64x96 has 128 tokens, fewer than the 129 queries .* {type(model).__name__} .*--shape'
    for make_call in (detector_call, training_call):
        with pytest.raises(ValueError, match=message):
            make_call(model, batch)


def test_what_works_is_not_refused():
    check_num_tokens(build(STOCK, NUM_TOKENS), *SHAPE)
    detector_call(build(LITE, NUM_TOKENS + 1), make_batch(1, SHAPE, 'cpu'))()
    check_num_tokens(build(TWO_STAGE, NUM_TOKENS + 1, as_two_stage=False, with_box_refine=False), *SHAPE)
