"""Detections are matched, not compared by their order."""

import numpy as np

from lite_detr_mmdet.export.compare import BOUNDS, Detections, compare_detections

BOUND = BOUNDS['float32']
BOXES = np.array([[0, 0, 10, 10], [5, 5, 20, 20], [1, 2, 3, 4]], dtype=np.float32)
DETECTIONS = Detections(BOXES, np.array([0.9, 0.500001, 0.5], dtype=np.float32), np.array([0, 1, 1]))


def changed(**fields) -> Detections:
    return DETECTIONS._replace(**{name: np.array(value) for name, value in fields.items()})


def test_order_of_near_equal_scores_is_no_difference():
    order = [0, 2, 1]
    other = Detections(BOXES[order], DETECTIONS.scores[order], DETECTIONS.labels[order])
    difference = compare_detections(DETECTIONS, other, BOUND)
    assert difference.is_within(BOUND) and difference.compared == 3 and difference.box == 0


def test_a_moved_box_a_score_and_a_label_are_differences():
    boxes = BOXES.copy()
    boxes[0, 0] += 0.01
    for other in (changed(boxes=boxes), changed(scores=[0.9001, 0.500001, 0.5]), changed(labels=[1, 1, 1])):
        difference = compare_detections(DETECTIONS, other, BOUND)
        assert not difference.is_within(BOUND) and difference.missing_sure == 2 and difference.compared == 2


def test_the_worst_detection_may_be_another():
    other = Detections(np.array([*BOXES[:2], [7, 7, 8, 8]]), DETECTIONS.scores, DETECTIONS.labels)
    assert compare_detections(DETECTIONS, other, BOUND).is_within(BOUND)


def test_near_equal_scores_do_not_excuse_that_nothing_matches():
    equal = DETECTIONS._replace(scores=np.full(3, 0.5, np.float32))
    difference = compare_detections(equal, equal._replace(boxes=BOXES + 1), BOUND)
    assert not difference.is_within(BOUND) and difference.missing_sure == 6 and difference.compared == 0


def test_two_equal_detections_are_matched_with_two():
    twice = Detections(BOXES[[0, 0]], np.array([0.9, 0.9]), np.array([0, 0]))
    once = Detections(BOXES[[0, 1]], np.array([0.9, 0.8]), np.array([0, 0]))
    assert compare_detections(twice, twice, BOUND).compared == 2
    assert not compare_detections(twice, once, BOUND).is_within(BOUND)
