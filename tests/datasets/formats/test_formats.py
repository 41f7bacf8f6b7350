"""Reading Pascal VOC and YOLO, writing COCO: coordinates, splits, and what is wrong with a set."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from lite_detr_mmdet.datasets.formats import FormatError, read_voc, read_yolo, split_by_content
from lite_detr_mmdet.datasets.formats.convert import convert, run_converter
from lite_detr_mmdet.datasets.formats.detection_set import Box, ImageEntry, clean_box
from lite_detr_mmdet.datasets.formats.yolo import label_path


def draw(path: Path, size=(64, 48), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def voc_xml(*objects, name: str = 'x.jpg', size=(64, 48)) -> str:
    items = ''.join(
        f'<object><name>{label}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>'
        '</bndbox></object>'
        for label, x1, y1, x2, y2 in objects
    )
    return (
        f'<annotation><filename>{name}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>'
        f'{items}</annotation>'
    )


@pytest.fixture
def voc(tmp_path):
    """Eight good images in VOC's folders, two of them for validation."""
    root = tmp_path / 'voc'
    (root / 'Annotations').mkdir(parents=True)
    (root / 'ImageSets' / 'Main').mkdir(parents=True)
    for index in range(8):
        draw(root / 'JPEGImages' / f'{index}.png', seed=index)
        (root / 'Annotations' / f'{index}.xml').write_text(voc_xml(('nut', 1, 1, 10, 20), ('bolt', 5, 5, 64, 48)))
    (root / 'ImageSets' / 'Main' / 'train.txt').write_text('\n'.join(f'{index}  1' for index in range(6)))
    (root / 'ImageSets' / 'Main' / 'val.txt').write_text('6\n7\n')
    return root


@pytest.fixture
def yolo(tmp_path):
    root = tmp_path / 'yolo'
    for split, numbers in dict(train=range(6), valid=range(6, 8)).items():
        for index in numbers:
            draw(root / split / 'images' / f'{index}.png', seed=index)
            label = root / split / 'labels' / f'{index}.txt'
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text('1 0.5 0.5 0.25 0.5\n')
    (root / 'data.yaml').write_text('train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [bolt, nut]\n')
    return root


def test_voc_counts_pixels_from_one_to_the_last_inside(voc):
    data = read_voc(voc)
    assert data.classes == ('bolt', 'nut') and not data.problems
    assert {split: len(images) for split, images in data.splits.items()} == dict(train=6, val=2)
    nut, bolt = data.splits['train'][0].boxes
    assert nut[:4] == (0, 0, 10, 20) and bolt[:4] == (4, 4, 64, 48)
    assert read_voc(voc, zero_based=True).splits['train'][0].boxes[0][:4] == (1, 1, 11, 21)


def test_yolo_boxes_and_polygons(yolo):
    (yolo / 'train/labels/1.txt').write_text('0 0.25 0.25 0.75 0.25 0.75 0.5 0.25 0.5\n')
    (yolo / 'train/labels/2.txt').write_text('')
    (yolo / 'train/labels/3.txt').unlink()
    data = read_yolo(yolo)
    assert data.classes == ('bolt', 'nut') and not data.problems
    boxes = [image.boxes for image in data.splits['train']]
    assert boxes[0] == [Box(24, 12, 40, 36, 'nut')] and boxes[1] == [Box(16, 12, 48, 24, 'bolt')]
    assert boxes[2] == boxes[3] == []


@pytest.mark.parametrize('read, source', [(read_voc, 'voc'), (read_yolo, 'yolo')])
def test_conversion_gives_a_folder_that_pycocotools_reads(read, source, request, tmp_path):
    data = read(request.getfixturevalue(source))
    lines = convert(data, tmp_path / 'out')
    assert 'no problems' in lines
    coco = COCO(str(tmp_path / 'out/annotations/instances_train.json'))
    assert len(coco.imgs) == 6 and [c['name'] for c in coco.loadCats(coco.getCatIds())] == ['bolt', 'nut']
    for image in coco.imgs.values():
        with Image.open(tmp_path / 'out/images' / image['file_name']) as file:
            assert file.size == (image['width'], image['height'])
    for annotation in coco.anns.values():
        x, y, w, h = annotation['bbox']
        assert annotation['area'] == w * h and x + w <= 64 and y + h <= 48


def test_one_file(voc, tmp_path):
    convert(read_voc(voc), tmp_path / 'all.json')
    assert len(json.loads((tmp_path / 'all.json').read_text())['images']) == 8
    assert not (tmp_path / 'images').exists()


def test_broken_voc_files_are_named(voc):
    annotations = voc / 'Annotations'
    (annotations / '0.xml').write_text('<annotation><object>')
    (annotations / '1.xml').write_text(
        voc_xml(
            ('nut', 9, 9, 9, 9),
            ('nut', 80, 10, 90, 20),
            ('nut', 10, 10, 90, 20),
            ('nut', 'a', 1, 2, 3),
            ('', 1, 1, 9, 9),
        )
    )
    (annotations / '2.xml').write_text(voc_xml(('bolt', 1, 1, 9, 9), ('bolt', 1, 1, 9, 9), ('nut', 1, 1, 'nan', 9)))
    (annotations / '3.xml').write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>')
    (voc / 'JPEGImages' / '4.png').write_bytes(b'')
    (voc / 'JPEGImages' / '5.png').unlink()
    draw(voc / 'JPEGImages' / 'lonely.png')
    data = read_voc(voc)
    told = '\n'.join(f'{Path(where).name}: {what}' for where, what in data.problems)
    for words in (
        '0.xml: is not XML',
        '1.xml, object 1: box (8, 8, 8, 8) has no area',
        '1.xml, object 2: box (79, 9, 90, 20) lies outside the image of 64x48',
        '1.xml, object 3: box (9, 9, 90, 20) leaves the image of 64x48 pixels: clipped',
        '1.xml, object 4: bndbox must hold four numbers',
        '1.xml, object 5: has no name',
        "2.xml, object 2: box (0, 0, 9, 9) of 'bolt' is listed twice",
        '2.xml, object 3: box (0, 0, nan, 8) is not finite',
        '3.xml: declares entities',
        '4.png cannot be read as an image',
        '5.xml: has no image',
        'lonely.png: has no XML file',
        "train.txt, line 1: '0' has no annotation",
    ):
        assert words in told, f'{words} is not in\n{told}'
    assert [image.name for image in data.splits['train']] == ['1.png', '2.png']


def test_broken_yolo_lines_are_named(yolo):
    label = yolo / 'train/labels/0.txt'
    lines = ['2 .5 .5 .1 .1', 'x .5 .5 .1 .1', '0 .5 .5 .1', '0 .5 .5 0 .1', '0 300 200 50 60', '0 nan .5 .1 .1']
    lines += ['0.5 .5 .5 .1 .1', '-1 .5 .5 .1 .1', '0 .5 .5 .2 .2', '0 .5 .5 .2 .2', '0 1 .5 .5 .5']
    label.write_text('\n'.join(lines))
    data = read_yolo(yolo / 'data.yaml')
    assert [where.rpartition(', ')[2] for where, _ in data.problems] == [
        f'line {n}' for n in (1, 2, 3, 4, 5, 6, 7, 8, 10, 11)
    ]
    assert len(data.splits['train'][0].boxes) == 2
    assert data.problems[4].what == 'must hold shares of the image, got 300 200 50 60: left out'
    label.write_text('0 .5 .5')
    assert read_yolo(yolo).problems[0].what == 'must hold a class and 4 numbers, or a polygon, got 3: left out'


def test_list_of_images_without_annotations(voc):
    (voc / 'ImageSets' / 'Main' / 'val.txt').write_text('nowhere\n')
    with pytest.raises(FormatError, match=r'val\.txt lists no image that has an annotation'):
        read_voc(voc)


@pytest.mark.parametrize(
    'content, words',
    [
        ('train: train/images\nnames: [a, a]', 'must differ'),
        ('train: train/images\nnames: [a, b]\nnc: 3', 'nc must be the number of names, 2, got 3'),
        ('train: train/images\nnames: {0: a, 2: b}', 'without gaps'),
        ('train: nowhere\nnames: [a]', 'there is no'),
        ('names: [a]', 'under train, val or test'),
        ('[1, 2]', 'must hold settings'),
        ('a: [', 'is not YAML'),
    ],
)
def test_data_yaml_that_cannot_be_used(yolo, content, words):
    (yolo / 'data.yaml').write_text(content)
    with pytest.raises(FormatError, match=words):
        read_yolo(yolo)


def test_command_names_what_is_missing(tmp_path, capsys):
    with pytest.raises(SystemExit, match='holds no XML file'):
        run_converter(read_voc, '', [str(tmp_path), str(tmp_path / 'out')])
    with pytest.raises(SystemExit, match=r'must hold one data.yaml, got none'):
        run_converter(read_yolo, '', [str(tmp_path), str(tmp_path / 'out')])
    assert not (tmp_path / 'out').exists()


def test_another_image_in_the_way_is_not_overwritten(voc, tmp_path):
    draw(tmp_path / 'out' / 'images' / '0.png', seed=99)
    with pytest.raises(FormatError, match=r'0\.png already exists'):
        convert(read_voc(voc), tmp_path / 'out')


def test_split_keeps_copies_together_and_ignores_order(tmp_path):
    images = [
        ImageEntry(draw(tmp_path / f'{index}.png', (8, 8), seed=index // 2), f'{index}.png', 8, 8)
        for index in range(60)
    ]
    train, val = split_by_content(images, 0.3)
    sides = {image.name: 0 for image in train} | {image.name: 1 for image in val}
    assert len(sides) == 60 and all(sides[f'{i}.png'] == sides[f'{i + 1}.png'] for i in range(0, 60, 2))
    assert 0 < len(val) < 40
    again = split_by_content(images[::-1], 0.3)
    assert {image.name for image in again[1]} == {image.name for image in val}


def test_label_folder_is_that_beside_the_last_images():
    assert label_path(Path('images/set/images/a.b.png')) == Path('images/set/labels/a.b.txt')
    assert label_path(Path('set/a.png')) == Path('set/a.txt')


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-200, 200) | st.sampled_from([float('nan'), float('inf')]), min_size=4, max_size=4))
def test_clean_box_lies_inside_or_is_told(values):
    cleaned, what = clean_box(Box(*values, 'a'), 64, 48)
    if cleaned is None:
        assert what
    else:
        assert 0 <= cleaned.x1 < cleaned.x2 <= 64 and 0 <= cleaned.y1 < cleaned.y2 <= 48


def test_words_of_any_kind_never_crash_the_reader(yolo):
    words = Counter()
    generator = np.random.default_rng(0)
    pool = ['0', '1', '.5', '-3', 'nan', 'inf', '1e400', 'ä', '\x00', '0x1', '']
    for _ in range(150):
        lines = [' '.join(generator.choice(pool, generator.integers(0, 8))) for _ in range(4)]
        (yolo / 'train/labels/0.txt').write_text('\n'.join(lines))
        data = read_yolo(yolo)
        words['boxes'] += len(data.splits['train'][0].boxes)
        words['problems'] += len(data.problems)
    assert words['problems'] > 100
