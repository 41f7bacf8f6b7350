"""``to_supervision``."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

pytest.importorskip('supervision', reason='supervision is not installed: pip install supervision')

from lite_detr_mmdet.adapters import to_supervision

PREDICTION = dict(bboxes=[[1, 2, 30, 40], [5, 5, 9, 9]], scores=[0.9, 0.2], labels=[2, 0])
CLASSES = ('disc', 'rectangle', 'triangle')


def sample(**more) -> DetDataSample:
    found = InstanceData(**{key: torch.tensor(value) for key, value in PREDICTION.items()}, **more)
    return DetDataSample(pred_instances=found)


@pytest.mark.parametrize('result', [PREDICTION, dict(predictions=[PREDICTION], visualization=[]), sample()])
def test_every_form_of_a_result(result):
    found = to_supervision(result, classes=CLASSES)
    np.testing.assert_array_equal(found.xyxy, PREDICTION['bboxes'])
    np.testing.assert_allclose(found.confidence, PREDICTION['scores'])
    assert found.class_id.tolist() == [2, 0] and found.data['class_name'].tolist() == ['triangle', 'disc']
    assert len(to_supervision(result, score_thr=0.5)) == 1


def test_masks():
    masks = np.zeros((2, 48, 48), bool)
    masks[0, 2:40, 1:30] = True
    found = to_supervision(sample(masks=torch.tensor(masks)), score_thr=0.5)
    np.testing.assert_array_equal(found.mask, masks[:1])


def test_no_detection():
    assert len(to_supervision(dict(bboxes=[], scores=[], labels=[]), classes=CLASSES)) == 0


def test_of_a_detector(detector, image):
    found = to_supervision(detector(image, pred_score_thr=0), classes=detector.model.dataset_meta['classes'])
    assert len(found) == 10 and set(found.data['class_name']) <= set(CLASSES)


def test_bad_results():
    with pytest.raises(ValueError, match='must be of one image, got 2'):
        to_supervision(dict(predictions=[PREDICTION, PREDICTION]))
    with pytest.raises(TypeError, match='got list'):
        to_supervision([PREDICTION])
    with pytest.raises(ValueError, match='classes must name label 2, got 1 names'):
        to_supervision(PREDICTION, classes=('disc',))
