"""The stand-in for imgaug, which OneDL's mmdet imports."""

import sys

import pytest

from lite_detr_mmdet.compat.imgaug_stand_in import stand_in_for_imgaug


@pytest.fixture
def no_imgaug(monkeypatch, tmp_path):
    """An imgaug that fails as the one on PyPI does on numpy 2; the imported modules are put back."""
    for name in [name for name in sys.modules if name.partition('.')[0] == 'imgaug']:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / 'imgaug').mkdir()
    (tmp_path / 'imgaug' / '__init__.py').write_text("import numpy as np\nFLOATS = np.no_such_name['float']\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition('.')[0] == 'imgaug']:
        del sys.modules[name]


def test_import_works_and_use_says_what_is_missing(no_imgaug):
    assert stand_in_for_imgaug() and stand_in_for_imgaug()
    import imgaug.augmenters as iaa
    from imgaug.augmentables.lines import LineString, LineStringsOnImage  # noqa: F401
    from imgaug.augmentables.segmaps import SegmentationMapsOnImage  # noqa: F401

    with pytest.raises(NotImplementedError, match=r"imgaug\.augmenters\.Sequential is not here: .* 'numpy<2'"):
        iaa.Sequential([])
    with pytest.raises(NotImplementedError, match='LineString'):
        LineString([])
    assert not hasattr(iaa, '__wrapped__')


def test_imgaug_that_loads_is_left_alone(monkeypatch, no_imgaug, tmp_path):
    (tmp_path / 'imgaug' / '__init__.py').write_text('')
    (tmp_path / 'imgaug' / 'augmenters.py').write_text('Sequential = list\n')
    assert not stand_in_for_imgaug()
    assert sys.modules['imgaug.augmenters'].Sequential is list
