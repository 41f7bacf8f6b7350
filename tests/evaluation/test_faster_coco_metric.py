"""``FasterCocoMetric`` gives the numbers of ``CocoMetric``."""

import json
import sys

import numpy as np
import pytest
from mmdet.registry import METRICS

SIZES = [(12, 16), (40, 60), (120, 150)]


@pytest.fixture
def scene(tmp_path):
    """Annotation file and results of 20 images with objects of all sizes, some of them missed or misplaced."""
    rng = np.random.default_rng(0)
    images, annotations, results = [], [], []
    for image_id in range(20):
        images.append(dict(id=image_id, file_name=f'{image_id}.png', width=400, height=300))
        boxes = []
        for _ in range(rng.integers(0, 12)):
            width, height = rng.uniform(*SIZES[rng.integers(3)], 2)
            x, y, label = rng.uniform(0, 240), rng.uniform(0, 140), int(rng.integers(3))
            iscrowd = int(rng.random() < 0.05)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    bbox=[x, y, width, height],
                    area=width * height,
                    iscrowd=iscrowd,
                )
            )
            box = np.array([x, y, x + width, y + height]) + rng.normal(0, width / 12, 4)
            boxes += [(box, label, rng.random()) for _ in range(rng.integers(0, 3))]
        results.append(
            dict(
                img_id=image_id,
                bboxes=np.array([box for box, _, _ in boxes]).reshape(-1, 4),
                scores=np.array([score for _, _, score in boxes]),
                labels=np.array([label for _, label, _ in boxes], dtype=int),
            )
        )
    path = tmp_path / 'annotations.json'
    categories = [dict(id=index + 1, name=name) for index, name in enumerate('abc')]
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return path, results


def evaluate(name: str, scene: tuple, **more) -> dict:
    path, results = scene
    metric = METRICS.build(dict(type=name, ann_file=str(path), metric='bbox', classwise=True, **more))
    metric.dataset_meta = dict(classes=('a', 'b', 'c'))
    return metric.compute_metrics([(dict(img_id=item['img_id']), item) for item in results])


@pytest.mark.parametrize('more', [{}, dict(proposal_nums=(1, 10, 100))])
def test_equal_numbers(scene, more, monkeypatch):
    library = pytest.importorskip(
        'faster_coco_eval', reason='faster-coco-eval is not installed: pip install faster-coco-eval'
    )
    expected = evaluate('CocoMetric', scene, **more)
    original, calls = library.COCOeval_faster.evaluate, []
    monkeypatch.setattr(library.COCOeval_faster, 'evaluate', lambda self: calls.append(1) or original(self))
    found = evaluate('FasterCocoMetric', scene, **more)
    assert calls == [1]
    assert found == expected and 0.1 < found['bbox_mAP'] < 0.9


def test_mmdet_is_left_as_it_was(scene):
    pytest.importorskip('faster_coco_eval', reason='faster-coco-eval is not installed: pip install faster-coco-eval')
    from mmdet.evaluation.metrics import coco_metric

    before = coco_metric.COCOeval
    evaluate('FasterCocoMetric', scene)
    assert coco_metric.COCOeval is before


def test_error_names_the_command(monkeypatch, scene):
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    with pytest.raises(ImportError, match='pip install faster-coco-eval'):
        evaluate('FasterCocoMetric', scene)
