"""COCO's metrics on some of the images and categories."""

import pytest
from pycocotools.coco import COCO

from lite_detr_mmdet.evaluation.coco_stats import coco_stats


@pytest.fixture
def coco():
    """Two images; in both an object of category 3, in the first one also an object of category 7."""
    box = dict(bbox=[2.0, 2.0, 10.0, 10.0], area=100.0, iscrowd=0)
    places = [(1, 3), (1, 7), (2, 3)]
    made = COCO()
    made.dataset = dict(
        info={},
        images=[dict(id=image, width=20, height=20) for image in (1, 2)],
        categories=[dict(id=category, name=str(category)) for category in (3, 7)],
        annotations=[
            dict(box, id=number, image_id=image, category_id=category)
            for number, (image, category) in enumerate(places, 1)
        ],
    )
    made.createIndex()
    return made


FOUND = [dict(image_id=1, category_id=3, bbox=[2.0, 2.0, 10.0, 10.0], score=0.9)]


@pytest.mark.parametrize('images, categories, ap', [([1], [3], 1.0), ([1], [3, 7], 0.5), ([1, 2], [3], 0.505)])
def test_only_what_is_asked_for_counts(coco, images, categories, ap):
    stats = coco_stats(coco, FOUND, images, categories)
    assert len(stats) == 12 and stats[0] == pytest.approx(ap, abs=1e-3) and stats[1] == pytest.approx(ap, abs=1e-3)


def test_without_detections(coco):
    assert coco_stats(coco, [], [1], [3]) == [0.0] * 12
