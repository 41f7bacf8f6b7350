"""Tests of cutting HIT-UAV into tiles."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('sahi', reason='needs sahi, see requirements/adapters.txt')
BENCHMARKS = Path(__file__).resolve().parent.parent.parent / 'benchmarks'


@pytest.fixture
def tiles(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, 'accuracy_tiles', raising=False)
    import accuracy_tiles

    return accuracy_tiles


@pytest.fixture
def source(tmp_path):
    """One image with a box in the first tile and one that the middle cuts 60 to 40."""
    (tmp_path / 'source/images').mkdir(parents=True)
    image = np.arange(512 * 640 * 3, dtype=np.uint8).reshape(512, 640, 3)
    cv2.imwrite(str(tmp_path / 'source/images/a.png'), image)
    boxes = [[10, 20, 30, 40], [296, 300, 40, 20]]
    data = dict(
        images=[dict(id=1, file_name='a.png', width=640, height=512)],
        annotations=[
            dict(id=i, image_id=1, category_id=0, bbox=box, area=box[2] * box[3], iscrowd=0)
            for i, box in enumerate(boxes)
        ],
        categories=[dict(id=0, name='Person')],
    )
    for split in ('train', 'val', 'test'):
        (tmp_path / f'source/{split}.json').write_text(json.dumps(data))
    return tmp_path / 'source'


def test_tiles(tiles, source, tmp_path):
    out = tmp_path / 'out'
    tiles.cut(source, out)
    test, train = (json.loads((out / f'{split}.json').read_text()) for split in ('test', 'train'))
    assert len(test['images']) == 4 and {(im['width'], im['height']) for im in test['images']} == {(320, 256)}
    assert len(train['images']) == 2  # the others are empty
    assert sorted(a['bbox'] for a in test['annotations']) == [[10, 20, 30, 40], [296, 44, 24, 20]]
    whole = cv2.imread(str(source / 'images/a.png'))
    (cut_box,) = (a for a in test['annotations'] if a['bbox'] == [296, 44, 24, 20])
    (name,) = (im['file_name'] for im in test['images'] if im['id'] == cut_box['image_id'])
    assert (cv2.imread(str(out / 'images' / name)) == whole[256:, :320]).all()
    assert not list(tmp_path.glob('tmp*'))


def test_existing_folder_and_missing_file(tiles, source, tmp_path):
    with pytest.raises(SystemExit, match='source exists'):
        tiles.cut(source, source)
    (source / 'val.json').unlink()
    with pytest.raises(SystemExit, match='must hold val'):
        tiles.cut(source, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
