"""Detection in one line."""

import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

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
    result = detector(image, out_dir=str(tmp_path / 'out'), no_save_pred=False, pred_score_thr=0)['predictions'][0]
    assert len(result['scores']) == 10 and set(result['labels']) <= {0, 1, 2}
    boxes = np.array(result['bboxes'])
    assert (boxes >= 0).all() and (boxes <= [64, 48, 64, 48]).all()
    assert json.loads((tmp_path / 'out' / 'preds' / 'image.json').read_text())['labels'] == result['labels']
    assert result['names'] == [('disc', 'rectangle', 'triangle')[label] for label in result['labels']]
    assert json.loads((tmp_path / 'out' / 'preds' / 'image.json').read_text())['names'] == result['names']
    assert cv2.imread(str(tmp_path / 'out' / 'vis' / 'image.png')).shape == (48, 64, 3)


def test_number_of_classes_is_that_of_the_weights(small_config, checkpoint, image, tmp_path):
    path = tmp_path / 'coco.py'
    path.write_text(f"_base_ = '{small_config}'\nmodel = dict(bbox_head=dict(num_classes=80))\n")
    detector = lite_detr_mmdet.Detector(path, weights=str(checkpoint), device='cpu', show_progress=False)
    assert detector.model.bbox_head.num_classes == 3
    labels = detector(image, pred_score_thr=0)['predictions'][0]['labels']
    assert len(labels) == 10 and set(labels) <= {0, 1, 2}


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


def make(small_config, checkpoint):
    return lite_detr_mmdet.Detector(small_config, weights=checkpoint, device='cpu', show_progress=False)


def test_threshold_filters_results(small_config, checkpoint, image):
    detector = make(small_config, checkpoint)
    scores = detector(image, pred_score_thr=0)['predictions'][0]['scores']
    assert len(scores) == 10
    middle = sorted(scores)[5]
    kept = detector(image, pred_score_thr=middle)['predictions'][0]
    assert kept['scores'] == [score for score in scores if score >= middle]
    assert len(kept['names']) == len(kept['bboxes']) == len(kept['scores']) == 5
    assert detector(image, pred_score_thr=1)['predictions'][0]['bboxes'] == []


def test_images_of_pil(small_config, checkpoint, image):
    detector = make(small_config, checkpoint)
    of_file = detector(image, pred_score_thr=0)['predictions'][0]
    of_pil = detector(Image.open(image), pred_score_thr=0)['predictions'][0]
    assert of_pil == of_file
    turned = Image.open(image).transpose(Image.Transpose.ROTATE_90)  # PIL turns to the left
    turned.getexif()[0x0112] = 6  # to be shown turned to the right
    assert detector(turned, pred_score_thr=0)['predictions'][0] == of_file
    palette = Image.open(image).convert('P')
    assert len(detector([palette, image], pred_score_thr=0)['predictions']) == 2
    with pytest.raises(TypeError, match=r'inputs must be a path, .* got builtins.int'):
        detector(7)


def test_broken_images_of_a_folder_are_skipped(small_config, checkpoint, image, tmp_path):
    detector = make(small_config, checkpoint)
    folder = tmp_path / 'folder'
    folder.mkdir()
    for name in ('a.png', 'c.png', 'd.png'):
        (folder / name).write_bytes((tmp_path / 'image.png').read_bytes())
    (folder / 'b.png').write_text('no image')
    results = detector(folder, batch_size=2, pred_score_thr=0)
    assert len(results['predictions']) == 3
    assert [item['input'] for item in results['skipped']] == [str(folder / 'b.png')]
    assert 'cannot be used as an image' in results['skipped'][0]['error']
    with pytest.raises(lite_detr_mmdet.datasets.checks.DatasetError, match=r'b\.png cannot be used'):
        detector(str(folder / 'b.png'))
    with pytest.raises(lite_detr_mmdet.datasets.checks.DatasetError, match=r'b\.png cannot be used'):
        detector(str(folder), skip_broken=False)
    results = detector([str(folder / 'b.png'), str(folder / 'none.png')], skip_broken=True)
    assert results['predictions'] == [] and len(results['skipped']) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_missing_gpu_is_one_line(small_config, checkpoint):
    for build in (
        lambda: lite_detr_mmdet.Detector(small_config, weights=checkpoint, device='cuda:0'),
        lambda: lite_detr_mmdet.get_model(small_config, device='cuda:0'),
    ):
        with pytest.raises(ValueError, match=r"device 'cuda:0' is not there: .*; use 'cpu'") as error:
            build()
        assert '\n' not in str(error.value)
    with pytest.raises(ValueError, match="device must be such as 'cpu' or 'cuda:0', got 'gpu'"):
        lite_detr_mmdet.Detector(small_config, weights=checkpoint, device='gpu')
