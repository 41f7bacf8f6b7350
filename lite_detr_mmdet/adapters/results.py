"""Results as ``supervision.Detections``."""

from typing import Any, Optional, Sequence

import numpy as np
from mmdet.structures import DetDataSample
from pycocotools import mask as coco_mask

from .optional import require

supervision = require('supervision')


def to_supervision(
    result: Any, score_thr: float = 0.0, classes: Optional[Sequence[str]] = None
) -> 'supervision.Detections':
    """Convert the detections of one image.

    Args:
        result (dict | DetDataSample): What ``Detector`` or ``mmdet.apis.inference_detector`` returns for one image, or
            one of the ``predictions`` of the former.
        score_thr (float): Smallest score to keep. Defaults to 0.
        classes (Sequence[str], optional): Class names, ``detector.model.dataset_meta['classes']``, which become
            ``data['class_name']``. Defaults to None: none.

    Returns:
        supervision.Detections: Boxes in pixels, (N, 4), x1, y1, x2, y2; scores, labels and, if there are any, masks.

    Raises:
        TypeError: If the result is none of these.
        ValueError: If it holds several images, or a label has no name in ``classes``.
    """
    boxes, scores, labels, masks = _parts(result)
    kept = scores >= score_thr
    data = {}
    if classes is not None:
        if len(labels) and labels.max() >= len(classes):
            raise ValueError(f'classes must name label {labels.max()}, got {len(classes)} names')
        data['class_name'] = np.array([classes[label] for label in labels[kept]], dtype=str)
    return supervision.Detections(
        xyxy=boxes[kept],
        confidence=scores[kept],
        class_id=labels[kept],
        mask=None if masks is None else masks[kept],
        data=data,
    )


def _parts(result: Any) -> tuple:
    """Boxes, scores, labels and masks as arrays."""
    if isinstance(result, DetDataSample):
        found = result.pred_instances.cpu().numpy()
        masks = np.asarray(found.masks, dtype=bool) if 'masks' in found else None
        boxes, scores, labels = found.bboxes, found.scores, found.labels
    else:
        if isinstance(result, dict) and 'predictions' in result:
            if len(result['predictions']) != 1:
                raise ValueError(
                    f'result must be of one image, got {len(result["predictions"])}: convert each of its predictions'
                )
            result = result['predictions'][0]
        if not isinstance(result, dict) or not {'bboxes', 'scores', 'labels'} <= result.keys():
            raise TypeError(f'result must be a prediction with bboxes, scores and labels, got {type(result).__name__}')
        boxes, scores, labels = result['bboxes'], result['scores'], result['labels']
        masks = np.array([coco_mask.decode(item) for item in result['masks']], bool) if result.get('masks') else None
    return (
        np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
        np.asarray(scores, dtype=np.float32),
        np.asarray(labels, dtype=np.int64),
        masks,
    )
