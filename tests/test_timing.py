"""Seconds and peak memory of calls."""

import torch

from lite_detr_mmdet.timing import measure_peak_bytes, measure_seconds, time_interleaved


def test_rounds_are_interleaved_and_the_first_warms_up():
    calls = []
    seconds = time_interleaved({name: lambda name=name: calls.append(name) for name in 'ab'}, 2, 'cpu')
    assert calls == ['a', 'b'] * 3
    assert {name: len(values) for name, values in seconds.items()} == {'a': 2, 'b': 2}


def test_peak_counts_what_is_there_at_once():
    def run() -> None:
        for _ in range(3):
            torch.empty(1 << 20)  # 4 MB, freed each time

    assert 4 << 20 <= measure_peak_bytes(run, 'cpu') < 8 << 20
    assert measure_seconds(run, 'cpu') > 0
