"""Tests of what tokens and attention of a run of the accuracy study are measured by."""

import importlib
import json
from pathlib import Path

import pytest
import torch

import lite_detr_mmdet

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = ROOT / 'tests' / 'data' / 'bccd' / 'images'


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    return [importlib.import_module(f'accuracy_{name}') for name in ('tokens', 'attention')]


@pytest.fixture(scope='module')
def model():
    return lite_detr_mmdet.Detector(
        'lite-dino-4scale_h3l1-2p1x3_efficientnet-lite0_1xb2-8e_bccd', device='cpu', show_progress=False
    ).model


def test_images_with_objects_evenly_spread(modules, tmp_path):
    images = [dict(id=i, file_name=f'{i}.png') for i in range(8)]
    objects = [dict(image_id=i) for i in (1, 2, 3, 5, 6, 7)]
    (tmp_path / 'a.json').write_text(json.dumps(dict(images=images, annotations=objects)))
    chosen = modules[0].choose_images(tmp_path, tmp_path / 'a.json', 3)
    assert [path.name for path in chosen] == ['1.png', '3.png', '6.png']
    assert len(modules[0].choose_images(IMAGES, None, 5)) == 5


def test_tokens_of_a_trained_model(modules, model):
    image = sorted(IMAGES.iterdir())[:1]
    cosines, best = modules[0].describe_tokens(model, image)
    assert cosines.shape == best.shape == (4,)
    assert best.sum() == modules[0].NUM_BEST and (best >= 0).all()
    assert (cosines > 0).all() and (cosines < 1).all()


def test_share_on_objects(modules, model):
    image = min(IMAGES.iterdir())
    everywhere = modules[1].share_on_objects(model, image, torch.tensor([[-1e4, -1e4, 1e4, 1e4]]))
    nowhere = modules[1].share_on_objects(model, image, torch.tensor([[5.0, 5.0, 4.0, 4.0]]))
    assert everywhere == [100.0] * 4 and nowhere == [0.0] * 4
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [9.0, 9.0], [3.0, 7.0]])
    boxes = torch.tensor([[2.0, 3.0, 4.0, 5.0], [8.0, 8.0, 9.0, 9.0]])
    assert modules[1].inside(points, boxes).tolist() == [False, True, True, False]
