"""benchmarks/accuracy_bootstrap.py: the weighted AP against pycocotools, and intervals of differences."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / 'benchmarks'
NUM_IMAGES = 30


@pytest.fixture
def bootstrap(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module('accuracy_bootstrap')


@pytest.fixture(scope='module')
def annotations(tmp_path_factory):
    """Random objects of three categories, the last one not trained; some images are empty."""
    generator = np.random.default_rng(0)
    objects = []
    for image in range(NUM_IMAGES):
        for _ in range(generator.integers(0, 6)):
            side = float(generator.choice([20, 60, 140]))
            x, y, w, h = (float(v) for v in generator.uniform([0, 0, side / 2, side / 2], [400, 400, side, side]))
            objects.append(
                dict(
                    id=len(objects) + 1,
                    image_id=image,
                    category_id=int(generator.integers(3)),
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=0,
                )
            )
    path = tmp_path_factory.mktemp('annotations') / 'objects.json'
    content = dict(
        images=[dict(id=image, width=640, height=640) for image in range(NUM_IMAGES)],
        annotations=objects,
        categories=[dict(id=index, name=str(index)) for index in range(3)],
    )
    path.write_text(json.dumps(content))
    return path


def detect(annotations: Path, jitter: float, seed: int) -> list:
    """Objects found with an error of ``jitter`` pixels, some missed, some invented."""
    generator = np.random.default_rng(seed)
    found = []
    for item in json.loads(annotations.read_text())['annotations']:
        if generator.random() < 0.85:
            box = (np.array(item['bbox']) + generator.normal(0, jitter, 4)).clip(1).tolist()
            found.append(dict(image_id=item['image_id'], category_id=item['category_id'], bbox=box))
    for _ in range(60):
        box = generator.uniform([0, 0, 8, 8], [400, 400, 140, 140]).tolist()
        found.append(
            dict(image_id=int(generator.integers(NUM_IMAGES)), category_id=int(generator.integers(3)), bbox=box)
        )
    return [{**item, 'score': float(generator.random())} for item in found]


def evaluate(annotations: Path, detections: list, image_ids=None) -> list:
    coco = COCO(str(annotations))
    evaluation = COCOeval(coco, coco.loadRes(detections), 'bbox')
    evaluation.params.catIds = [0, 1]
    if image_ids is not None:
        evaluation.params.imgIds = image_ids
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [100 * evaluation.stats[index] for index in (0, 3, 4, 5)]


def test_equal_weights_give_the_figures_of_pycocotools(bootstrap, annotations):
    detections = detect(annotations, 4, seed=1)
    matches = bootstrap.ImageMatches(annotations, detections, [0, 1])
    figures = matches.average_precision(np.ones(NUM_IMAGES))
    assert list(figures.values()) == pytest.approx(evaluate(annotations, detections), abs=1e-9)


def test_weight_zero_leaves_an_image_out(bootstrap, annotations):
    detections = detect(annotations, 4, seed=2)
    weights = (np.arange(NUM_IMAGES) % 2).astype(float)
    figures = bootstrap.ImageMatches(annotations, detections, [0, 1]).average_precision(weights)
    odd = evaluate(annotations, detections, list(range(1, NUM_IMAGES, 2)))
    assert list(figures.values()) == pytest.approx(odd, abs=1e-9)


def test_better_detections_win_and_equal_ones_do_not(bootstrap, annotations):
    sharp = {seed: bootstrap.ImageMatches(annotations, detect(annotations, 2, seed), [0, 1]) for seed in (0, 1)}
    blurred = {seed: bootstrap.ImageMatches(annotations, detect(annotations, 16, seed), [0, 1]) for seed in (0, 1)}
    result = bootstrap.compare(sharp, blurred, replicates=60)['AP']
    assert 0 < result['low'] <= result['difference'] <= result['high']
    assert result['seeds'] == 2
    same = bootstrap.compare(sharp, sharp, replicates=20)['AP']
    assert same['low'] == same['difference'] == same['high'] == 0


def test_models_without_a_common_seed_are_refused(bootstrap, annotations):
    matches = bootstrap.ImageMatches(annotations, detect(annotations, 4, 0), [0, 1])
    with pytest.raises(ValueError, match=r'no seed in common: \[0\] and \[1\]'):
        bootstrap.compare({0: matches}, {1: matches})
