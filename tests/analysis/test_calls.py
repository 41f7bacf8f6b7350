"""Calls to measure: they compute what they say."""

import copy

import pytest
import torch
from helpers.detectors import tiny_config  # noqa: F401
from mmdet.registry import MODELS

from lite_detr_mmdet.acceleration import accelerate
from lite_detr_mmdet.analysis.calls import CALLS, make_batch, prediction_error


@pytest.fixture
def model(tiny_config):  # noqa: F811
    cfg = tiny_config('lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py')
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.eval()


@pytest.mark.parametrize('part', CALLS)
def test_every_part_runs_and_leaves_no_gradients(model, part):
    run = CALLS[part](model, make_batch(2, [64, 96], 'cpu'))
    run()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training == ('training' in part)


def test_prediction_error(model):
    batch = make_batch(1, [64, 96], 'cpu')
    other = copy.deepcopy(model)
    assert set(prediction_error(other, model, batch).values()) == {0.0}
    error = prediction_error(accelerate(other, verbose=False), model, batch)
    assert error['max_box_error_px'] < 1e-3 and error['max_score_error'] < 1e-5
    with torch.no_grad():
        other.bbox_head.cls_branches[5].bias += 1.0
    assert prediction_error(other, model, batch)['mean_score_error'] > 1e-3
