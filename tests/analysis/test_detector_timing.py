"""Seconds of parts: each counted once, and what calls another part does not count it as its own."""

import pytest
from torch import nn

from lite_detr_mmdet.analysis import detector_timing
from lite_detr_mmdet.analysis.detector_timing import PartTimer, percentile, time_parts


def test_percentile():
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0 and percentile([1.0], 0.95) == 1.0
    assert percentile(list(range(1, 101)), 0.95) == 95 and percentile(list(range(1, 101)), 0.5) == 50


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Model(nn.Module):
    """A detector whose parts take known times; the clock is the test's."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.backbone, self.neck, self.bbox_head = self.part(1), self.part(2), self.part(4)

    def part(self, seconds: float) -> nn.Module:
        module = nn.Module()
        module.__class__ = type('Part', (nn.Module,), dict(forward=lambda _: self.spend(seconds)))
        module.__class__.predict = module.__class__.forward
        return module

    def spend(self, seconds: float) -> None:
        self.clock.now += seconds

    def forward_encoder(self) -> None:
        self.spend(8)

    def forward_decoder(self) -> None:
        self.spend(16)
        self.neck()  # a part within a part is counted once

    def forward(self) -> None:
        self.backbone()
        self.neck()
        self.forward_encoder()
        self.spend(32)
        self.forward_decoder()
        self.bbox_head.predict()


def test_parts_are_told_apart(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(detector_timing, 'time', clock)
    model, timer = Model(clock), PartTimer('cpu')
    for _ in range(2):
        with timer.listening(model):
            assert timer.run(model) == dict(backbone=1, neck=4, encoder=8, decoder=16, bbox_head=4, other=32)
    assert 'forward_encoder' not in model.__dict__ and 'forward' not in model.neck.__dict__


def test_model_without_parts():
    with pytest.raises(ValueError, match='Identity has no backbone'):
        time_parts({'one': nn.Identity()}, {}, 1, 'cpu')
