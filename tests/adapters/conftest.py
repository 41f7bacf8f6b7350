"""Fixtures of these tests."""

import sys

import numpy as np
import pytest
from helpers.small_model import checkpoint, small_config  # noqa: F401

import lite_detr_mmdet


@pytest.fixture(scope='session')
def detector(checkpoint):  # noqa: F811
    """A small detector."""
    return lite_detr_mmdet.Detector(weights=checkpoint, device='cpu', show_progress=False)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)


@pytest.fixture
def without(monkeypatch):
    """Import an adapter where a library is not installed."""

    def hide(module: str, library: str) -> None:
        for name in list(sys.modules):
            if name.partition('.')[0] == library:
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.delitem(sys.modules, f'lite_detr_mmdet.adapters.{module}', raising=False)

        class Hide:
            def find_spec(self, name, path=None, target=None):
                if name.partition('.')[0] == library:
                    raise ModuleNotFoundError(f'No module named {name!r}', name=library)

        monkeypatch.setattr(sys, 'meta_path', [Hide(), *sys.meta_path])

    return hide
