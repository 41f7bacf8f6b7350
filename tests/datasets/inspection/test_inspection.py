"""Each planted fault is found, with its place; mended files have none left."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from lite_detr_mmdet.datasets.inspection import inspect_config, read_splits
from lite_detr_mmdet.datasets.inspection.annotations import read_box
from lite_detr_mmdet.datasets.inspection.findings import KINDS
from lite_detr_mmdet.datasets.inspection.fixes import fix_splits
from lite_detr_mmdet.datasets.inspection.sheet import TILE, draw_sheet

SIZE = (64, 48)


def write_image(path: Path, seed: int, size=SIZE) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def data(tmp_path):
    """A good set of eight training and four validation images, as dictionaries that a test may spoil."""
    contents = {}
    for split, numbers in dict(train=range(8), val=range(8, 12)).items():
        images, annotations = [], []
        for number in numbers:
            write_image(tmp_path / 'images' / f'{number}.png', number)
            images.append(dict(id=number, file_name=f'{number}.png', width=SIZE[0], height=SIZE[1]))
            for label in (1, 2):
                box = [4.0 * label, 5, 20, 24]
                item = dict(id=10 * number + label, image_id=number, category_id=label, bbox=box, area=480, iscrowd=0)
                annotations.append(item)
        categories = [dict(id=1, name='bolt'), dict(id=2, name='nut')]
        contents[split] = dict(images=images, annotations=annotations, categories=categories)
    return contents


@pytest.fixture
def inspect(tmp_path, data):
    """Write the set and inspect it with a config; keywords change the config."""

    def run(classes=('bolt', 'nut'), num_classes=2, num_queries=100, scale=SIZE, **metainfo):
        for split, content in data.items():
            (tmp_path / f'{split}.json').write_text(json.dumps(content))
        return inspect_config(make_config(tmp_path, classes, num_classes, num_queries, scale, **metainfo))

    return run


def make_config(root, classes=('bolt', 'nut'), num_classes=2, num_queries=100, scale=SIZE, **metainfo) -> Config:
    def dataset(split):
        pipeline = [
            dict(type='RandomChoice', transforms=[[dict(type='RandomChoiceResize', scales=[scale, (640, 480)])]])
        ]
        return dict(
            data_root=str(root),
            ann_file=f'{split}.json',
            data_prefix=dict(img='images/'),
            metainfo=dict(classes=classes, **metainfo),
            pipeline=pipeline,
        )

    return Config(
        dict(
            model=dict(num_queries=num_queries, bbox_head=dict(num_classes=num_classes), backbone=dict(num_classes=9)),
            train_dataloader=dict(dataset=dict(type='RepeatDataset', times=2, dataset=dataset('train'))),
            val_dataloader=dict(dataset=dataset('val')),
            test_dataloader=dict(dataset=dataset('val')),
        )
    )


def kinds(report) -> set:
    return {finding.kind for finding in report.findings}


def test_good_set(inspect):
    report = inspect()
    assert report.findings == [] and not report.has_errors
    assert report.format().startswith('train: ') and '8 images, 16 annotations (bolt 8, nut 8)' in report.format()
    assert report.format().endswith('0 errors, 0 warnings, 0 notes')


@pytest.mark.parametrize(
    'settings, kind, words',
    [
        (
            dict(classes=('bold', 'nut')),
            'class-names',
            "no category 'bold', only ['bolt', 'nut']; did you mean 'bolt'?",
        ),
        (dict(classes=('Bolt', 'nut')), 'class-names', "did you mean 'bolt'?"),
        (dict(classes='bolt', num_classes=1), 'classes-not-a-list', "must be a tuple, got 'bolt'"),
        (dict(num_classes=80), 'num-classes', 'must be 2, the classes, got 80'),
        (dict(classes=('bolt',), num_classes=1), 'unused-category', "'nut' is not among the classes"),
        (dict(num_queries=1), 'too-many-objects', 'has 2 objects, the detector 1 queries'),
        (dict(scale=(2, 2)), 'vanishing-object', 'resized by 0.0312'),
        (dict(palette=[(1, 2, 3)]), 'palette', '1 colors for 2 classes'),
    ],
)
def test_config_that_does_not_fit(inspect, settings, kind, words):
    found = inspect(**settings).of_kind(kind)
    assert found and words in found[0].what


SPOILERS = {
    'bad-number': lambda train: train['annotations'][0].update(bbox=[0, 0, math.nan, 3]),
    'empty-box': lambda train: train['annotations'][0].update(bbox=[5, 5, 0, 9]),
    'box-outside': lambda train: train['annotations'][0].update(bbox=[65, 5, 9, 9]),
    'box-leaves-image': lambda train: train['annotations'][0].update(bbox=[60, 5, 9, 9]),
    'duplicate-box': lambda train: train['annotations'].append({**train['annotations'][0], 'id': 999}),
    'duplicate-id': lambda train: train['annotations'][1].update(id=train['annotations'][0]['id']),
    'unknown-category': lambda train: train['annotations'][0].update(category_id=7),
    'unknown-image': lambda train: train['annotations'][0].update(image_id=777),
    'image-size': lambda train: train['images'][0].update(width=48, height=64),
    'missing-image': lambda train: train['images'][0].update(file_name='nowhere.png'),
    'image-without-objects': lambda train: train.update(annotations=train['annotations'][2:]),
    'class-without-objects': lambda train: train.update(annotations=train['annotations'][::2]),
}


@pytest.mark.parametrize('kind', SPOILERS)
def test_annotation_that_is_wrong(inspect, data, kind):
    SPOILERS[kind](data['train'])
    report = inspect()
    found = report.of_kind(kind)
    assert found and 'train.json' in found[0].where
    assert report.has_errors == any(KINDS[name][0] == 'error' for name in kinds(report))


def test_image_files_that_are_wrong(inspect, tmp_path):
    images = tmp_path / 'images'
    (images / '0.png').write_bytes((images / '0.png').read_bytes()[:200])
    (images / '1.png').write_text('<html>not found</html>')
    (images / '3.png').write_bytes((images / '2.png').read_bytes())
    (images / '8.png').write_bytes((images / '4.png').read_bytes())
    report = inspect()
    assert {Path(f.where).name for f in report.of_kind('unreadable-image')} == {'0.png', '1.png'}
    assert [f.what for f in report.of_kind('duplicate-image')] == ['2.png, 3.png are copies of one image']
    assert [f.what for f in report.of_kind('leakage')] == ['the same image: 4.png in train, 8.png in val']


@pytest.mark.parametrize('text', ['{', '[]', '{"images": [], "annotations": 3, "categories": []}', '{"images": [1]}'])
def test_annotation_file_that_cannot_be_read(inspect, tmp_path, text):
    inspect()
    (tmp_path / 'train.json').write_text(text)
    report = inspect_config(make_config(tmp_path))
    assert len(report.of_kind('annotation-file')) == 1 and report.has_errors


def test_broken_set_can_be_mended(inspect, data, tmp_path):
    names = (
        'bad-number',
        'empty-box',
        'box-outside',
        'box-leaves-image',
        'missing-image',
        'image-size',
        'unknown-image',
    )
    for index, kind in enumerate(names):  # each in an image and box of its own
        part = dict(images=data['train']['images'][index:], annotations=data['train']['annotations'][2 * index :])
        SPOILERS[kind](part)
    SPOILERS['duplicate-box'](data['val'])
    images = tmp_path / 'images'
    (images / '8.png').write_bytes((images / '7.png').read_bytes())
    assert {*names, 'duplicate-box', 'leakage'} <= kinds(inspect())
    splits = read_splits(make_config(tmp_path)).splits
    out = tmp_path / 'fixed'
    told = {path.name: what for path, what in fix_splits(splits, out)}
    assert told['train.json'].startswith('6 of 8 images') and told['val.json'].startswith(
        '4 of 4 images, 8 of 9 boxes'
    )
    for path in out.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    report = inspect_config(make_config(tmp_path))
    assert not report.has_errors and kinds(report) <= {'image-without-objects'}
    with pytest.raises(FileExistsError, match=r'train\.json already exists'):
        fix_splits(splits, out)


def test_sheet_shows_every_readable_image(inspect, tmp_path):
    inspect()
    (tmp_path / 'images' / '0.png').write_text('broken')
    path = draw_sheet(read_splits(make_config(tmp_path)).splits, tmp_path / 'sheet.png')
    with Image.open(path) as sheet:
        assert sheet.size == (4 * TILE[0], 3 * TILE[1])  # 7 + 4 tiles in rows of 4
        colors = {sheet.getpixel((x, y)) for x in range(0, TILE[0]) for y in range(0, TILE[1], 3)}
    assert (0xDC, 0x14, 0x3C) in colors and (0x1E, 0x3C, 0xDC) in colors


def test_boxes_are_four_finite_numbers():
    assert read_box(dict(bbox=[1, 2.5, 3, 4])) == (1, 2.5, 3, 4)
    for box in (None, [1, 2, 3], ['1', '2', '3', '4'], [True, 1, 2, 3], [1, 2, 3, math.inf], {'a': 1}):
        assert read_box(dict(bbox=box)) is None
    assert read_splits(Config(dict(model=dict(num_queries='9')))).num_queries is None


def test_what_cannot_be_mended_is_left_out(inspect, data, tmp_path):
    train = data['train']
    del train['images'][0]['id']
    train['annotations'][2].update(category_id=7)
    train['annotations'][3].update(area='large')
    inspect()
    fix_splits(read_splits(make_config(tmp_path)).splits[:1], tmp_path / 'fixed')
    fixed = json.loads((tmp_path / 'fixed' / 'train.json').read_text())
    assert [image['file_name'] for image in fixed['images']] == [f'{number}.png' for number in range(1, 8)]
    assert {item['category_id'] for item in fixed['annotations']} == {1, 2} and len(fixed['annotations']) == 13
    assert {item['area'] for item in fixed['annotations']} == {480}


def test_image_that_is_cut_off_behind_its_header(inspect, data, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    path = tmp_path / 'images' / 'cut.jpg'
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:-1500])
    data['train']['images'][0].update(file_name='cut.jpg')
    assert [Path(finding.where).name for finding in inspect().of_kind('unreadable-image')] == ['cut.jpg']
