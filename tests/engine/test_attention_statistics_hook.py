"""Statistics of key-aware attention, on numbers that can be worked out by hand."""

import math

import pytest
import torch

from lite_detr_mmdet.engine import AttentionStatisticsHook, attention_statistics

SHAPES = torch.tensor([[4, 4], [2, 2]])


def statistics(query, key, offsets, reference=None):
    reference = torch.full((1, 1, 2, 2), 0.5) if reference is None else reference
    return attention_statistics(query, key, SHAPES, reference, offsets)


def test_equal_keys_weigh_the_same():
    key = torch.ones(1, 20, 1, 4)
    offsets = torch.zeros(1, 1, 1, 2, 3, 2)
    found = statistics(torch.ones(1, 1, 1, 4), key, offsets)
    assert found['entropy'] == pytest.approx(1) and found['reach'] == 0 and found['outside'] == 0
    assert found['share_0'] == found['share_1'] == pytest.approx(0.5)


def test_a_planted_key_attracts_its_query():
    key = torch.zeros(1, 20, 1, 4)
    key[:, 16:] = 50.0  # the whole second level
    found = statistics(torch.ones(1, 1, 1, 4), key, torch.zeros(1, 1, 1, 2, 1, 2))
    assert found['share_1'] == pytest.approx(1) and found['entropy'] == pytest.approx(0, abs=1e-6)


def test_entropy_is_that_of_the_weights():
    key = torch.zeros(1, 20, 1, 1)
    key[:, 16:] = math.log(3)
    found = statistics(torch.ones(1, 1, 1, 1), key, torch.zeros(1, 1, 1, 2, 1, 2))  # weights 1/4 and 3/4
    expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    assert found['entropy'] == pytest.approx(expected, rel=1e-5) and found['share_1'] == pytest.approx(0.75)


def test_reach_and_samples_outside():
    offsets = torch.zeros(1, 1, 1, 2, 2, 2)
    offsets[..., 0, 0, :] = torch.tensor([30.0, 40.0])  # of four samples one, 50 tokens away and outside
    found = statistics(torch.ones(1, 1, 1, 4), torch.zeros(1, 20, 1, 4), offsets)
    assert found['reach'] == pytest.approx(50 / 4) and found['outside'] == pytest.approx(1 / 4)


def test_reach_of_boxes():
    boxes = torch.tensor([0.5, 0.5, 0.5, 0.25]).expand(1, 1, 2, 4)
    offsets = torch.ones(1, 1, 1, 2, 2, 2)
    found = statistics(torch.ones(1, 1, 1, 4), torch.zeros(1, 20, 1, 4), offsets, boxes)
    # half a box of the level, shared out over two points: (0.5 W, 0.25 H) / 4
    lengths = [math.hypot(0.5 * side / 4, 0.25 * side / 4) for side in (4, 2)]
    assert found['reach'] == pytest.approx(sum(lengths) / 2)


def test_bad_interval():
    with pytest.raises(ValueError, match='interval and num_queries must be at least 1, got 0 and 256'):
        AttentionStatisticsHook(interval=0)
