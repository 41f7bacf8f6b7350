"""Data sets of strangers: annotations of wrong types, YAML and XML that grow, names that steer a terminal."""

import json
import struct
import zlib

import pytest
from mmengine.config import Config
from PIL import Image

from lite_detr_mmdet.datasets.checks import DatasetError, read_categories
from lite_detr_mmdet.datasets.formats.coco import read_coco, write_json
from lite_detr_mmdet.datasets.formats.convert import convert
from lite_detr_mmdet.datasets.formats.detection_set import FormatError, read_image_size
from lite_detr_mmdet.datasets.formats.folder import open_folder
from lite_detr_mmdet.datasets.formats.voc import read_voc
from lite_detr_mmdet.datasets.formats.yolo import read_yolo
from lite_detr_mmdet.datasets.inspection import inspect_config, read_splits
from lite_detr_mmdet.datasets.inspection.config import Split
from lite_detr_mmdet.datasets.inspection.fixes import fix_splits
from lite_detr_mmdet.datasets.inspection.images import check_image
from lite_detr_mmdet.datasets.inspection.sheet import draw_sheet

LISTS = 'a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n' + ''.join(
    f'a{level}: &a{level} [{", ".join([f"*a{level - 1}"] * 10)}]\n' for level in range(1, 12)
)


@pytest.mark.parametrize(
    'content, fault',
    [
        (LISTS + 'names: [*a11]', 'holds an alias'),
        (LISTS + 'names: [a]\ntrain: *a11', 'holds an alias'),
        ('names: ' + '[' * 3000, 'is not YAML'),
        ('names: ' + '[' * 3000 + ']' * 3000, 'is not YAML'),
        ('names: !!python/object/apply:os.mkdir ["ran"]', 'is not YAML'),
        ('names: !!python/name:os.system', 'is not YAML'),
        ('names: [[a]]', 'names must list the classes'),
        ('names: [{a: b}]', 'names must list the classes'),
        ('names: []', 'names must list the classes'),
        ('names: a', 'names must list the classes'),
        ('[names]', 'must hold settings'),
        ('names: [a]\npath: 3\ntrain: nowhere', 'there is no'),
        ('names: [a]\ntrain: [empty]', 'holds no image'),
        ('names: [2001-99-99]', 'is not YAML: month must be'),
        ('names: [' + '9' * 5000 + ']', 'is not YAML'),
        ('nc: !!int ""', 'is not YAML'),
        ('nc: !!bool x', 'is not YAML'),
        ('nc: !!timestamp x', 'is not YAML'),
        ('names: {a: 1, 1: b}', 'numbered from 0'),
        ('? [a]\n: b\nnames: [a]', 'is not YAML'),
        ('names: [a]\ntrain: ' + 'x' * 5000, 'there is no'),
        ('names: [a]\npath: ' + 'x' * 5000 + '\ntrain: y', 'there is no'),
        ('names: [a]\ntrain: "\\0"', 'there is no'),
        ('#' * (1 << 20) + '\nnames: [a]', 'too many for a data.yaml'),
        ('names: ["\\e[2J", "\\e[2J"]', 'names must differ, got .*x1b'),
    ],
    ids=range(25),
)
def test_yaml(tmp_path, monkeypatch, content, fault):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'data.yaml').write_text(content)
    with pytest.raises(FormatError, match=fault):
        read_yolo(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['data.yaml', 'empty']


def test_bytes_that_are_no_text(tmp_path):
    """In lists and labels they are a problem of their line, elsewhere of the file."""
    (tmp_path / 'data.yaml').write_bytes(b'names: [\xff]')
    with pytest.raises(FormatError, match='is not YAML'):
        read_yolo(tmp_path)
    Image.new('RGB', (16, 16)).save(tmp_path / 'a.png')
    (tmp_path / 'a.txt').write_bytes(b'0 .5 .5 .5 .5\n\xff .5 .5 .5 .5')
    (tmp_path / 'list.txt').write_bytes(b'a.png\n\xff.png')
    (tmp_path / 'data.yaml').write_text('names: [x]\ntrain: list.txt')
    data = read_yolo(tmp_path)
    assert len(data.splits['train'][0].boxes) == 1 and len(data.problems) == 2
    (tmp_path / 'a.xml').write_text(
        '<annotation><object><name>x</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>'
        '<ymax>9</ymax></bndbox></object></annotation>'
    )
    lists = tmp_path / 'ImageSets' / 'Main'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_bytes(b'a\n\xff\n')
    data = read_voc(tmp_path)
    assert len(data.splits['train'][0].boxes) == 1 and len(data.problems) == 1


def test_names_that_no_file_can_have(tmp_path):
    Image.new('RGB', (16, 16)).save(tmp_path / 'a.png')
    (tmp_path / 'list.txt').write_text(f'a.png\n{"x" * 5000}\na\0.png\n')
    (tmp_path / 'data.yaml').write_text('names: [x]\ntrain: list.txt')
    data = read_yolo(tmp_path)
    assert len(data.splits['train']) == 1 and [what.split(' ')[2] for _, what in data.problems] == ['no', 'no']


def empty_png(side: int) -> bytes:
    """An image that says that it has so many pixels."""
    chunks = ((b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)), (b'IDAT', b''), (b'IEND', b''))
    parts = [
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('pillow_limit', [Image.MAX_IMAGE_PIXELS, None])  # None: as other libraries leave it
@pytest.mark.parametrize('side', [13_000, 60_000])
def test_images_that_unpack_to_more_than_the_memory(tmp_path, monkeypatch, pillow_limit, side):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', pillow_limit)
    (tmp_path / 'a.png').write_bytes(empty_png(side))
    with pytest.raises(FormatError, match=r'a\.png cannot be read as an image: .*decompression bomb'):
        read_image_size(tmp_path / 'a.png')
    (tmp_path / 'a.xml').write_text('<annotation/>')
    with pytest.raises(FormatError, match='decompression bomb'):
        read_voc(tmp_path)
    image = dict(id=1, file_name='a.png', width=side, height=side)
    finding = check_image(Split('train', tmp_path / 'train.json', tmp_path, None), image, tmp_path / 'a.png')
    assert finding.kind == 'unreadable-image' and 'decompression bomb' in finding.what


def test_long_xml(tmp_path):
    (tmp_path / 'a.xml').write_bytes(b' ' * (16 * 2**20 + 1))
    with pytest.raises(FormatError, match=r'has 16777217 bytes, too many for an annotation'):
        read_voc(tmp_path)


@pytest.mark.parametrize(
    'content, fault',
    [
        ('[' * 100_000, 'is not JSON'),
        ('{', 'is not JSON'),
        ('3', 'must hold a list of images'),
        ('{"images": [3]}', 'must hold a list of images'),
        (
            '{"images": [{"id": ' + str(list(range(5000))) + '}]}',
            r'must hold a number or a text as id in images, got .{60}$',
        ),
    ],
    ids=range(5),
)
def test_annotations_in_coco_format(tmp_path, content, fault):
    (tmp_path / 'train.json').write_text(content)
    with pytest.raises(FormatError, match=fault):
        read_coco(tmp_path / 'train.json')
    with pytest.raises(FormatError, match=r'no annotations|list of'):
        open_folder(tmp_path)
    with pytest.raises(DatasetError, match=r"train\.json must be annotations in COCO's format"):
        read_categories(tmp_path / 'train.json')


def test_failed_writing_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / 'a.json', dict(a=object()))
    assert not list(tmp_path.iterdir())


def test_errors_hold_no_escape_sequences():
    for error in (FormatError, DatasetError):
        assert str(error('a\x1b[2J\nb')) == 'a\ufffd[2J\nb'


def test_images_outside_of_the_folder_keep_their_name_alone(tmp_path):
    (tmp_path / 'set').mkdir()
    Image.new('RGB', (16, 16)).save(tmp_path / 'b.png')
    (tmp_path / 'set' / 'list.txt').write_text(f'../b.png\n{tmp_path}/b.png')
    (tmp_path / 'set' / 'data.yaml').write_text('names: [x]\ntrain: list.txt')
    data = read_yolo(tmp_path / 'set')
    assert {image.name for image in data.splits['train']} == {'b.png'}


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16'])
def test_entities_of_xml(tmp_path, encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY b "x">]><annotation>&b;</annotation>'
    (tmp_path / 'a.xml').write_bytes(text.encode(encoding))
    with pytest.raises(FormatError, match='declares entities'):
        read_voc(tmp_path)


@pytest.mark.parametrize(
    'place', ['coco', 'coco/images', 'coco/annotations', 'coco/images/sub', 'coco/images/sub/a.png']
)
@pytest.mark.parametrize('exists', [True, False])
def test_links_in_a_packed_folder_are_not_written_through(tmp_path, place, exists):
    """A data set of another format is converted within its folder, which may hold links to anywhere."""
    root, victim = tmp_path / 'set', tmp_path / 'victim'
    (root / 'sub').mkdir(parents=True)
    for number, name in enumerate(('a', 'b', 'c', 'd')):
        Image.new('RGB', (16, 16), (number, 9, 9)).save(root / 'sub' / f'{name}.png')
        (root / 'sub' / f'{name}.txt').write_text('0 .5 .5 .5 .5')
    (root / 'data.yaml').write_text('names: [x]\ntrain: sub\nval: sub')
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).symlink_to(victim)
    if exists and place.endswith('.png'):
        victim.write_bytes((root / 'sub' / 'a.png').read_bytes())
    elif exists:
        victim.mkdir()
    with pytest.raises(FormatError, match='link'):
        open_folder(root)
    if exists and not place.endswith('.png'):
        assert list(victim.iterdir()) == []
    assert victim.exists() == exists
    (root / place).unlink()
    assert open_folder(root).classes == ('x',) and (root / 'coco' / 'images' / 'sub' / 'a.png').is_file()


def coco(**changes) -> dict:
    """Annotations of one image, with some entries changed."""
    content = dict(
        images=[dict(id=0, file_name='a.png', width=16, height=16)],
        annotations=[dict(id=1, image_id=0, category_id=0, bbox=[1, 1, 4, 4])],
        categories=[dict(id=0, name='bolt')],
    )
    for place, value in changes.items():
        kind, _, name = place.partition('_')
        if name:
            content[kind][0][name] = value
        else:
            content[kind] = value
    return content


def write(folder, content) -> Config:
    """The annotations as a folder with a config."""
    (folder / 'annotations').mkdir(exist_ok=True)
    (folder / 'images').mkdir(exist_ok=True)
    Image.new('RGB', (16, 16)).save(folder / 'images' / 'a.png')
    for split in ('train', 'val'):
        (folder / 'annotations' / f'{split}.json').write_text(json.dumps(content))
    dataset = dict(ann_file='annotations/train.json', data_root=str(folder), data_prefix=dict(img='images/'))
    return Config(dict(train_dataloader=dict(dataset=dataset), model=dict(num_queries=3)))


VALUES = (None, [], {}, [[]], 'x', '\x1b[2J', -1, 1.5, 1e308, True, '../../../etc/passwd', 'x' * 3000, 'a\0b')
PLACES = ('images', 'annotations', 'categories') + tuple(
    f'{kind}_{name}'
    for kind, names in dict(
        images=('id', 'file_name', 'width', 'height'),
        annotations=('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd'),
        categories=('id', 'name'),
    ).items()
    for name in names
)


@pytest.mark.parametrize('place', PLACES)
def test_annotations_of_wrong_types(tmp_path, place):
    """Whatever an annotation file holds, it is inspected, mended and drawn, or refused with its name."""
    for index, value in enumerate(VALUES):
        cfg = write(tmp_path, coco(**{place: value}))
        report = inspect_config(cfg)
        assert '\x1b' not in report.format(99)
        splits = [split for split in read_splits(cfg).splits if split.content]
        draw_sheet(splits, tmp_path / 'sheet.png')
        fix_splits(splits, tmp_path / f'fixed {index}')
        try:
            open_folder(tmp_path)
        except FormatError as error:
            assert str(tmp_path) in str(error) and '\x1b' not in str(error)


@pytest.mark.parametrize(
    'changes, fault',
    [
        (dict(images_file_name=None), 'must hold a file_name for each of its images'),
        (dict(categories_name=3), 'must hold a name for each of its categories'),
        (dict(categories_id='x'), 'must hold a number as the id of each'),
        (dict(images=[]), 'lists no image'),
        (dict(images_file_name='x' * 3000), 'names the image .*, which is in none of'),
        (dict(images_file_name='a\0b'), 'names the image .*, which is in none of'),
    ],
    ids=str,
)
def test_folders_in_coco_format(tmp_path, changes, fault):
    write(tmp_path, coco())
    assert open_folder(tmp_path).classes == ('bolt',)
    write(tmp_path, coco(**changes))
    with pytest.raises(FormatError, match=rf'train\.json {fault}'):
        open_folder(tmp_path)


def test_annotation_files_that_are_missing_or_too_many(tmp_path):
    write(tmp_path, coco())
    (tmp_path / 'annotations' / 'train_2.json').write_bytes((tmp_path / 'annotations' / 'train.json').read_bytes())
    with pytest.raises(FormatError, match='one annotation file must be for train, got'):
        open_folder(tmp_path)
    (tmp_path / 'annotations' / 'train_2.json').unlink()
    (tmp_path / 'annotations' / 'val.json').unlink()
    with pytest.raises(FormatError, match='must have an annotation file for val'):
        open_folder(tmp_path)


def test_huge_boxes_are_drawn(tmp_path):
    for box in ([-1e308, -1e308, 1e308, 1e308], [0, 0, 1e12, 1e12], [1e12, 1e12, 1, 1]):
        splits = read_splits(write(tmp_path, coco(annotations_bbox=box))).splits
        draw_sheet(splits, tmp_path / 'sheet.png')


def test_names_do_not_steer_the_terminal(tmp_path):
    (tmp_path / 'data.yaml').write_text('names: ["\\e[2Jbolt"]\ntrain: images')
    (tmp_path / 'images').mkdir()
    Image.new('RGB', (16, 16)).save(tmp_path / 'images' / 'a.png')
    lines = convert(read_yolo(tmp_path), tmp_path / 'out')
    assert 'classes: \ufffd[2Jbolt' in lines and not any('\x1b' in line for line in lines)
