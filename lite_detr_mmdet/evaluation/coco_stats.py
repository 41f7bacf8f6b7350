"""COCO's metrics of results on some of the images and categories of an annotation file."""

from typing import List, Sequence

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def coco_stats(coco: COCO, results: Sequence[dict], image_ids: List[int], category_ids: List[int]) -> List[float]:
    """AP, AP50, AP75, AP of small, medium and large objects, and COCO's six recalls.

    Args:
        coco (COCO): The annotations.
        results (sequence[dict]): Detections with ``image_id``, ``category_id``, ``bbox`` (x, y, w, h) and ``score``.
        image_ids (list[int]): Images to evaluate on.
        category_ids (list[int]): Categories that the detector knows. Others of the annotations do not count; the
            detector would have an AP of 0 on them.
    """
    if not results:
        return [0.0] * 12
    evaluation = COCOeval(coco, coco.loadRes(list(results)), 'bbox')
    evaluation.params.imgIds = image_ids
    evaluation.params.catIds = category_ids
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [float(value) for value in evaluation.stats]
