"""Sliced inference with sahi."""

import numpy as np
import pytest

pytest.importorskip('sahi', reason='sahi is not installed: pip install sahi')

from sahi.predict import get_prediction, get_sliced_prediction

from lite_detr_mmdet.adapters import SahiModel


class Finder:
    """Stands in for a detector: one box around the red pixels of each image, in BGR."""

    def __init__(self, detector) -> None:
        self.model = detector.model

    def __call__(self, images, batch_size, pred_score_thr):
        found = []
        for image in images:
            rows, columns = np.nonzero((image[..., 2] > 200) & (image[..., 0] < 50))
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else None
            found.append(dict(bboxes=[box] if box else [], scores=[0.8] if box else [], labels=[1] if box else []))
        return dict(predictions=found)


@pytest.mark.parametrize('batch_size', [1, 3])
def test_boxes_of_tiles_come_back_in_the_image(detector, batch_size):
    model = SahiModel(detector, batch_size=batch_size)
    model.model = Finder(detector)
    image = np.zeros((200, 300, 3), np.uint8)
    image[150:160, 250:270] = (255, 0, 0)  # red, in RGB
    result = get_sliced_prediction(
        image, model, 100, 100, overlap_height_ratio=0.2, overlap_width_ratio=0.2, verbose=0, batch_size=batch_size
    )
    boxes = [item.bbox.to_xyxy() for item in result.object_prediction_list]
    assert [250, 150, 270, 160] in boxes
    assert {item.category.name for item in result.object_prediction_list} == {'rectangle'}


def test_boxes_without_area_or_score_are_left_out(detector):
    boxes = [[10, 10, 20, 20], [10, 10, 10, 20], [10, 20, 20, 10], [10, 10, 20, 20]]
    model = SahiModel(detector, score_thr=0.5)
    model.model = lambda *_, **__: dict(predictions=[dict(bboxes=boxes, scores=[0.9, 0.9, 0.9, 0.4], labels=[1] * 4)])
    found = get_prediction(np.zeros((48, 64, 3), np.uint8), model, verbose=0).object_prediction_list
    assert [item.bbox.to_xyxy() for item in found] == [[10, 10, 20, 20]]


def test_without_slices_it_is_the_detector(detector, image):
    expected = detector(image[..., ::-1].copy(), pred_score_thr=0)['predictions'][0]
    found = get_prediction(image, SahiModel(detector, score_thr=0.0), verbose=0).object_prediction_list
    assert len(found) == len(expected['scores'])
    np.testing.assert_allclose([item.score.value for item in found], expected['scores'], atol=1e-6)
    boxes = [item.bbox.to_xyxy() for item in found]
    np.testing.assert_allclose(boxes, np.array(expected['bboxes']), atol=1)  # sahi may round


def test_by_weights(checkpoint):
    model = SahiModel(weights=checkpoint, device='cpu')
    assert model.num_categories == 3 and model.category_mapping['2'] == 'triangle'
