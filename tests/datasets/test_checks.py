"""Data sets: names of classes, images and boxes that cannot be used, each with its file."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import init_default_scope

from lite_detr_mmdet.datasets.checks import (
    CheckedSamples,
    DatasetError,
    check_class_names,
    check_image,
    check_sample,
    compare_class_names,
    explain_failed_build,
)
from lite_detr_mmdet.engine import ClassNamesHook

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]


@pytest.fixture(autouse=True)
def scope():
    """Names of transforms are mmdet's, as in a run."""
    init_default_scope('mmdet')


def write_set(folder, names=('cat', 'dog'), box=(1, 2, 20, 20), image=None):
    """A set of two images with a box each; ``image`` is the content of the second one."""
    images, annotations = [], []
    good = cv2.imencode('.png', np.full((32, 40, 3), 90, np.uint8))[1].tobytes()
    for index, content in enumerate((good, good if image is None else image)):
        (folder / f'{index}.png').write_bytes(content)
        images.append(dict(id=index, file_name=f'{index}.png', width=40, height=32))
        bbox = list(box if index else (1, 2, 20, 20))
        annotations.append(dict(id=index, image_id=index, category_id=1, bbox=bbox, area=400, iscrowd=0))
    categories = [dict(id=index + 1, name=name) for index, name in enumerate(names)]
    (folder / 'a.json').write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def load(folder, classes=('cat', 'dog'), **kwargs) -> CocoDataset:
    metainfo = dict(classes=classes, palette=[(0, 0, 0)] * len(classes))
    prefix = dict(img='')
    return CocoDataset(
        ann_file='a.json', data_root=str(folder), data_prefix=prefix, metainfo=metainfo, pipeline=PIPELINE, **kwargs
    )


@pytest.mark.parametrize('classes', [('cta', 'dog'), ('Cat', 'Dog'), ('person', 'car')])
def test_names_that_are_no_category(tmp_path, classes):
    write_set(tmp_path)
    dataset = load(tmp_path, classes)
    for wrapped in (dataset, RepeatDataset(dataset, 2), ConcatDataset([dataset, dataset])):
        with pytest.raises(DatasetError, match=r"no category of .*a\.json.*categories of the file: \['cat', 'dog'\]"):
            check_class_names(wrapped)
    check_class_names(load(tmp_path))
    check_class_names(load(tmp_path, ('dog',)))  # a part of them


def test_nearest_names():
    with pytest.raises(DatasetError, match=r"'cta' \(nearest: 'cat'\), 'Dgo' \(nearest: 'dog'\)"):
        compare_class_names(('cta', 'Dgo'), ['cat', 'dog'], 'a.json')
    with pytest.raises(DatasetError, match=r"metainfo\.classes has the name 'cat' twice"):
        compare_class_names(('cat', 'cat'), ['cat'], 'a.json')


def test_hook_checks_the_loops_that_are_built(tmp_path):
    from types import SimpleNamespace

    write_set(tmp_path)
    for classes, fails in ((('cat', 'dog'), False), (('cat', 'god'), True)):
        loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=load(tmp_path, classes)))
        runner = SimpleNamespace(_train_loop=loop, _val_loop=None)
        if fails:
            with pytest.raises(DatasetError, match="'god'"):
                ClassNamesHook().before_run(runner)
        else:
            ClassNamesHook().before_run(runner)


def encoded(*shape) -> bytes:
    return cv2.imencode('.png', np.full(shape, 90, np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    'kwargs, fault',
    [
        (dict(image=encoded(1, 1, 3)), 'must be at least 8 pixels wide and high, got 1x1'),
        (dict(image=encoded(3000, 1, 3)), 'got 1x3000'),
        (dict(image=encoded(32, 40, 3)[:30]), 'rror|NoneType'),
        (dict(image=b''), 'rror|NoneType'),
        (dict(box=(1, 2, float('inf'), 3)), 'its boxes must be finite'),
    ],
    ids=['1x1', '3000x1', 'truncated', 'empty', 'infinite box'],
)
def test_samples_that_cannot_be_used(tmp_path, kwargs, fault):
    write_set(tmp_path, **kwargs)
    dataset = load(tmp_path)
    if len(dataset) < 2:
        pytest.skip('mmdet leaves this one out')
    dataset.prepare_data = CheckedSamples(dataset)
    assert dataset[0]['inputs'].shape == (3, 32, 40)
    with pytest.raises(DatasetError, match=rf'1\.png \(of .*a\.json\): .*({fault})'):
        dataset[1]
    skipping = load(tmp_path)
    skipping.prepare_data = CheckedSamples(skipping, skip=True)
    assert skipping[1]['data_samples'].img_id == 0
    assert skipping.prepare_data.skipped >= 1


@pytest.mark.parametrize(
    'inputs, fault',
    [
        (torch.zeros(1, 9, 9), r'must have 3 channels, got the shape \(1, 9, 9\)'),
        (torch.zeros(9, 9), r'must have 3 channels, got the shape \(9, 9\)'),
        (torch.full((3, 9, 9), float('nan')), 'the image must be finite'),
        (torch.full((3, 9, 9), float('inf')), 'the image must be finite'),
        (torch.zeros(3, 9, 7), 'at least 8 pixels wide and high, got 7x9'),
    ],
)
def test_outputs_of_a_pipeline(inputs, fault):
    check_sample(dict(inputs=torch.zeros(3, 8, 8)))
    check_sample(dict(inputs=torch.zeros(3, 8, 8, dtype=torch.uint8)))
    with pytest.raises(DatasetError, match=fault):
        check_sample(dict(inputs=inputs))


def test_images_are_never_skipped_in_a_test(tmp_path):
    write_set(tmp_path, image=b'')
    dataset = load(tmp_path, test_mode=True)
    dataset.prepare_data = CheckedSamples(dataset, skip=True)
    with pytest.raises(DatasetError, match=r'1\.png'):
        dataset[1]


def test_name_that_a_file_has_twice(tmp_path):
    write_set(tmp_path, ('cat', 'dog', 'cat', 'bird', 'bird'))
    dataset = load(tmp_path)
    assert len(dataset.cat_ids) == 3  # mmdet's labels would be 0, 1 and 2, for two classes
    for wrapped in (dataset, RepeatDataset(dataset, 2), ConcatDataset([dataset, dataset])):
        with pytest.raises(DatasetError, match=r"a\.json has the name 'cat' twice"):
            check_class_names(wrapped)
    check_class_names(load(tmp_path, ('dog',)))


def test_class_of_one_file_of_several(tmp_path):
    for name, names in (('a', ('cat', 'dog')), ('b', ('cat',))):
        (tmp_path / name).mkdir()
        write_set(tmp_path / name, names)
    check_class_names(ConcatDataset([load(tmp_path / 'a'), load(tmp_path / 'b')]))
    (tmp_path / 'c').mkdir()
    write_set(tmp_path / 'c', ('dog',))
    check_class_names(ConcatDataset([load(tmp_path / 'b'), load(tmp_path / 'c'), load(tmp_path / 'b')]))


def test_sets_where_nothing_works(tmp_path):
    write_set(tmp_path, image=b'')
    (tmp_path / '0.png').write_bytes(b'')
    dataset = load(tmp_path)
    dataset.prepare_data = CheckedSamples(dataset, skip=True)
    with pytest.raises(DatasetError, match=r'almost every image fails, the last one was .*png'):
        dataset[0]


def test_failed_builds_are_explained(tmp_path):
    write_set(tmp_path)
    cfg = dict(data_root=str(tmp_path), ann_file='a.json', metainfo=dict(classes=('cat', 'dgo')))
    error = ValueError('need at least one array to concatenate')
    assert 'nearest: ' in str(explain_failed_build(dict(dataset=cfg), error))
    cfg['metainfo'] = dict(classes=('cat',))
    assert 'a.json has no image to use' in str(explain_failed_build(cfg, error))
    assert 'a.json cannot be used: KeyError' in str(explain_failed_build(cfg, KeyError('id')))
    (tmp_path / 'a.json').write_text('{')
    assert "a.json must be annotations in COCO's format" in str(explain_failed_build(cfg, error))


@pytest.mark.parametrize(
    'image, fault',
    [
        (np.zeros((4, 4)), 'height, width, 3'),
        (np.zeros((4, 4, 1), np.uint8), 'height, width, 3'),
        (np.zeros((0, 4, 3)), 'height, width, 3'),
        (np.full((4, 4, 3), np.nan), 'must be finite'),
        (np.zeros((4, 4, 3), object), 'of numbers'),
    ],
)
def test_arrays_that_are_no_images(image, fault):
    with pytest.raises(DatasetError, match=f'inputs must be .*{fault}|inputs must be finite'):
        check_image(image, 'inputs')
    check_image(torch.zeros(4, 4, 3).numpy(), 'inputs')


@pytest.mark.slow
def test_tools_refuse_before_the_first_iteration(run_tool, config, tiny_options, tmp_path):
    for names in ("('disc','rectangel','triangle')", "('a','b','c')"):
        options = [f'train_dataloader.dataset.metainfo.classes={names}']
        result = run_tool('tools/train.py', config, '--work-dir', tmp_path, *tiny_options, *options, check=False)
        assert result.returncode == 1 and 'Epoch(train)' not in result.output
        assert "categories of the file: ['disc', 'rectangle', 'triangle']" in result.output
