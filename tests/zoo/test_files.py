"""Where shipped files lie: in a source tree, in an editable install, in a wheel."""

from pathlib import Path

import pytest

from lite_detr_mmdet.zoo import config_folder, files, shipped_folder


def ship(folder: Path) -> Path:
    (folder / 'configs').mkdir(parents=True)
    (folder / 'model-index.yml').touch()
    return folder


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An empty folder in the place of the package's."""
    monkeypatch.setattr(files, 'PACKAGE', tmp_path / 'lite_detr_mmdet')
    return tmp_path / 'lite_detr_mmdet'


def test_wheel(package):
    folder = ship(package / '.mim')
    assert shipped_folder() == folder


def test_tree_comes_before_what_was_installed(package):
    ship(package / '.mim')
    tree = ship(package.parent)
    assert shipped_folder() == tree


def test_nothing_was_installed(package):
    (package.parent / 'configs').mkdir()  # of another package: there is no index of models
    with pytest.raises(FileNotFoundError, match='installed without its configs'):
        shipped_folder()


def test_configs_of_packages():
    assert config_folder() == shipped_folder() / 'configs'
    assert (config_folder('mmdet') / 'dino').is_dir()
