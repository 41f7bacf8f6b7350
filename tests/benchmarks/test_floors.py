"""benchmarks/floors.py: bytes that are counted by hand, and the larger of two times."""

import importlib
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / 'benchmarks'
# 2 images, 3 queries, 5 tokens, 2 heads of 4 channels, 1 level, 2 points
QUERY, VALUE, REFERENCE, OFFSETS = 2 * 3 * 8, 2 * 5 * 8, 2 * 3 * 2, 2 * 3 * 2 * 2 * 2
CORNERS = 2 * 3 * 2 * 2 * 4  # of all samples of all heads


@pytest.fixture
def floors(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module('floors')


def make_arguments(dtype=torch.float32):
    return dict(
        query=torch.zeros(2, 3, 2, 4, dtype=dtype),
        value=torch.zeros(2, 5, 2, 4, dtype=dtype),
        spatial_shapes=torch.tensor([[1, 5]]),
        level_start_index=torch.tensor([0]),
        reference_points=torch.zeros(2, 3, 1, 2),
        sampling_offsets=torch.zeros(2, 3, 2, 1, 2, 2),
    )


@pytest.mark.parametrize('dtype, size', [(torch.float32, 4), (torch.bfloat16, 2)])
def test_counted_bytes(floors, dtype, size):
    logsumexp = 2 * 3 * 2 * 4
    inputs = size * (QUERY + VALUE) + 4 * (REFERENCE + OFFSETS)
    gather = CORNERS * 4 * size
    arguments = make_arguments(dtype)
    assert floors.count_bytes(arguments, 'forward') == dict(memory=inputs + size * QUERY + logsumexp, gather=gather)
    gradients = size * (2 * QUERY + VALUE) + 4 * OFFSETS
    expected = dict(memory=inputs + gradients + logsumexp, gather=gather, atomic=CORNERS * 4 * 4)
    assert floors.count_bytes(arguments, 'backward') == expected


def test_floor_is_the_larger_of_memory_and_l1(floors):
    rates = dict(copy=1e3, l1_gather_128=1e5, l2_gather_128=10.0, l1_gather_64=1.0, l2_gather_64=1.0, atomic_float=7.0)
    arguments = make_arguments()
    moved = floors.count_bytes(arguments, 'backward')
    seconds = floors.floor_seconds(arguments, 'backward', rates)
    assert seconds['floor'] == seconds['memory'] == pytest.approx(moved['memory'] / 1e3)
    assert seconds['l2_gather'] == pytest.approx(moved['gather'] / 10)
    assert seconds['atomic'] == pytest.approx(moved['atomic'] / 7)
    seconds = floors.floor_seconds(arguments, 'forward', {**rates, 'l1_gather_128': 1e-3})
    assert seconds['floor'] == seconds['l1_gather'] > seconds['memory'] and 'atomic' not in seconds
