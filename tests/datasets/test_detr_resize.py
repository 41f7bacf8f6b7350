"""Sizes and pixels of the authors' evaluation."""

import numpy as np
import pytest
from mmdet.registry import TRANSFORMS
from PIL import Image

import lite_detr_mmdet  # noqa: F401
from lite_detr_mmdet.datasets.detr_resize import detr_size


@pytest.mark.parametrize(
    'size, expected',
    [
        ((640, 480), (1066, 800)),  # mmdet: 1067
        ((480, 640), (800, 1066)),
        ((640, 427), (1199, 800)),
        ((500, 333), (1201, 800)),
        ((640, 360), (1333, 750)),  # the long side is at its limit
        ((2000, 500), (1332, 333)),
        ((800, 800), (800, 800)),
    ],
)
def test_size(size, expected):
    assert detr_size(size, 800, 1333) == expected


def test_pixels_are_those_of_pillow():
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    transform = TRANSFORMS.build(dict(type='DETRResize', scale=(67, 40), keep_ratio=True))
    results = transform(dict(img=image, img_shape=image.shape[:2]))
    assert results['img_shape'] == (40, 53) and results['scale_factor'] == (53 / 120, 40 / 90)
    assert np.array_equal(results['img'], np.asarray(Image.fromarray(image).resize((53, 40), Image.BILINEAR)))


def test_pipeline_of_the_docs_gives_the_images_of_the_authors(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter, which the authors do not look at
    image.save(tmp_path / 'image.jpg', exif=exif)
    load = dict(type='LoadImageFromFile', imdecode_backend='pillow', color_type='color_ignore_orientation')
    results = dict(img_path=str(tmp_path / 'image.jpg'))
    for transform in (load, dict(type='DETRResize', scale=(67, 40), keep_ratio=True)):
        results = TRANSFORMS.build(transform)(results)
    with Image.open(tmp_path / 'image.jpg') as image:
        expected = np.asarray(image.resize((53, 40), Image.BILINEAR))
    assert np.array_equal(results['img'][..., ::-1], expected)  # mmdet's images are BGR until the model


def test_image_whose_ratio_would_change():
    with pytest.raises(ValueError, match='keep_ratio must be True, got False'):
        TRANSFORMS.build(dict(type='DETRResize', keep_ratio=False))
