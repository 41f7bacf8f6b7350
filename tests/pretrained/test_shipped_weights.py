"""Weights in ``weights/``: found by name, loaded without a network, and good on 20 images each."""

import json
import os
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import lite_detr_mmdet
from lite_detr_mmdet.checkpoint import file_sha256
from lite_detr_mmdet.zoo import shipped_folder, shipped_models

DATA = Path(__file__).resolve().parent.parent / 'data'
SHIPPED = {
    'lite-dino-4scale_h3l1-2p1x3_efficientnet-lite0_1xb2-3e_hit-uav': ('hit_uav', 0.05),
    'lite-dino-4scale_h3l1-2p1x3_efficientnet-lite0_1xb2-8e_bccd': ('bccd', 0.4),
}


def test_they_are_the_first_pretrained_models():
    assert lite_detr_mmdet.list_models(pretrained=True) == sorted(SHIPPED)
    folder = shipped_folder() / 'weights'
    named = {Path(shipped_models()[name].weights).resolve() for name in SHIPPED}
    assert named == {path.resolve() for path in folder.glob('*.pth')}
    for path in named:
        assert path.stat().st_size <= 10 << 20 and file_sha256(path).startswith(path.stem[-8:])
        assert path.with_suffix('.md').is_file()


@pytest.mark.parametrize('name', SHIPPED)
def test_average_precision(name, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('urllib.request.urlopen', None)  # no network
    folder, least = DATA / SHIPPED[name][0], SHIPPED[name][1]
    detector = lite_detr_mmdet.Detector(name, device='cpu', show_progress=False)
    truth = COCO(str(folder / 'annotations.json'))
    by_name = {category['name']: category['id'] for category in truth.dataset['categories']}
    paths = {str(folder / 'images' / image['file_name']): image['id'] for image in truth.dataset['images']}
    found = []
    for (_, image_id), result in zip(paths.items(), detector(list(paths), pred_score_thr=0)['predictions']):
        for (x1, y1, x2, y2), score, label in zip(result['bboxes'], result['scores'], result['names']):
            box = [x1, y1, x2 - x1, y2 - y1]
            found.append(dict(image_id=image_id, category_id=by_name[label], bbox=box, score=score))
    (tmp_path / 'found.json').write_text(json.dumps(found))
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / 'found.json')), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] > least
    assert os.listdir(tmp_path) == ['found.json']
