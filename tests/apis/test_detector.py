"""Detection in one line."""

import json

import cv2
import numpy as np
import pytest
import torch

import lite_detr_mmdet
from lite_detr_mmdet.apis.fit import check_fit


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    return str(path)


@pytest.mark.parametrize('with_config', [True, False], ids=['config', 'config of the weights'])
def test_one_line(small_config, checkpoint, image, tmp_path, with_config):
    detector = lite_detr_mmdet.Detector(
        small_config if with_config else None, weights=checkpoint, device='cpu', show_progress=False
    )
    result = detector(image, out_dir=str(tmp_path / 'out'), no_save_pred=False)['predictions'][0]
    assert len(result['scores']) == 10 and set(result['labels']) <= {0, 1, 2}
    boxes = np.array(result['bboxes'])
    assert (boxes >= 0).all() and (boxes <= [64, 48, 64, 48]).all()
    assert json.loads((tmp_path / 'out' / 'preds' / 'image.json').read_text())['labels'] == result['labels']
    assert cv2.imread(str(tmp_path / 'out' / 'vis' / 'image.png')).shape == (48, 64, 3)


def test_number_of_classes_is_that_of_the_weights(small_config, checkpoint, image, tmp_path):
    path = tmp_path / 'coco.py'
    path.write_text(f"_base_ = '{small_config}'\nmodel = dict(bbox_head=dict(num_classes=80))\n")
    detector = lite_detr_mmdet.Detector(path, weights=str(checkpoint), device='cpu', show_progress=False)
    assert detector.model.bbox_head.num_classes == 3
    assert set(detector(image)['predictions'][0]['labels']) <= {0, 1, 2}


def test_names_of_the_config_where_the_weights_have_none(small_config, checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    del content['meta']['dataset_meta']
    torch.save(content, tmp_path / 'bare.pth')
    for config in (small_config, None):
        detector = lite_detr_mmdet.Detector(config, weights=tmp_path / 'bare.pth', device='cpu')
        assert tuple(detector.visualizer.dataset_meta['classes']) == ('disc', 'rectangle', 'triangle')


def test_bad_arguments(small_config, tmp_path):
    with pytest.raises(ValueError, match='model or weights must be given'):
        lite_detr_mmdet.Detector()
    with pytest.raises(ValueError, match='has no released weights'):
        lite_detr_mmdet.Detector(small_config)
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=dict(a=torch.zeros(1))), path)
    with pytest.raises(ValueError, match=r'weights\.pth holds no config: model must be given'):
        lite_detr_mmdet.Detector(weights=path)


def test_weights_of_another_model_are_refused():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    weights = model.state_dict()
    check_fit(model, weights)
    with pytest.raises(ValueError, match=r'(?s)50% of the parameters.*2 missing, e.g. 1.weight.*1 not in the model'):
        check_fit(model, {'0.weight': weights['0.weight'], '0.bias': weights['0.bias'], 'other': weights['1.bias']})
    with pytest.raises(ValueError, match=r'1 of another shape, e.g. 0.weight'):
        check_fit(model, {**weights, '0.weight': torch.zeros(8, 9)})
