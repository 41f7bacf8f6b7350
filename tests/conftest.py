"""Fixtures that all tests share; they need torch only, so that the tests of the operators do."""

import os
import shutil
import sys
from pathlib import Path

# Containers often switch bytecode off; every program that a test starts would then compile torch and mmdet again,
# which takes longer than all else that it does. Still, nothing is written beside the sources.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).resolve().parents[1] / 'build' / 'pycache')
    os.environ.update(PYTHONDONTWRITEBYTECODE='', PYTHONPYCACHEPREFIX=sys.pycache_prefix)

# Tests work on small tensors: one thread is fastest, and processes that run at once do not wait for each other.
os.environ.setdefault('OMP_NUM_THREADS', '1')

# Before mmdet: it completes an mmcv without compiled operators. With LITE_DETR_OPS_ONLY=1 it imports neither.
import lite_detr_mmdet  # noqa: F401

# isort: split
import numpy as np
import pytest
import torch
from helpers.tools import (  # noqa: F401  here, so that what they make is made once
    config,
    error_of_tool,
    port,
    run_tool,
    shapes,
    tiny_options,
    trained,
)

GOLDEN = Path(__file__).resolve().parent / 'data' / 'golden'


def pytest_collection_modifyitems(items: list) -> None:
    """Put what takes longest first, so that no worker starts it when the others have nothing left to do."""
    items.sort(key=lambda item: item.get_closest_marker('process') is None)


@pytest.fixture(autouse=True)
def seed() -> None:
    """Make every test start from the same random state."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def golden():
    """Read a golden file: arrays as tensors, scalar entries as Python numbers."""

    def read(name: str) -> dict:
        arrays = np.load(GOLDEN / f'{name}.npz')
        return {key: torch.from_numpy(arrays[key]) if arrays[key].ndim else arrays[key].item() for key in arrays}

    return read


@pytest.fixture(scope='module')  # not longer: asyncio cannot be used beside it
def browser():
    """A headless Chromium."""
    sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    names = ('chromium', 'chromium-browser', 'google-chrome')
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        pytest.skip('needs Chromium')
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=executable, args=['--no-sandbox'])
        yield chromium
        chromium.close()
