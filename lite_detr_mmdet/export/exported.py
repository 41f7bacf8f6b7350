"""An exported model from images to detections, with what its metadata say."""

import json
from pathlib import Path
from typing import Any, Dict, List, Tuple

import cv2
import numpy as np

from .compare import Detections


def read_metadata(path: Path) -> Dict[str, Any]:
    """Classes and preprocessing of an exported model.

    Args:
        path (Path): ONNX, or OpenVINO's ``.xml``.

    Returns:
        dict: ``classes`` (list[str]) and ``preprocessing`` (dict).

    Raises:
        ValueError: If the file has none.
    """
    import openvino

    model = openvino.Core().read_model(str(path)) if Path(path).suffix == '.xml' else None
    if model is not None:
        found = {
            key: str(model.get_rt_info(['framework', key]).value)
            for key in ('classes', 'preprocessing')
            if model.has_rt_info(['framework', key])
        }
    else:
        import onnx

        found = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    if not {'classes', 'preprocessing'} <= set(found):
        raise ValueError(f'{path} has no metadata `classes` and `preprocessing`: it must come from export_onnx.py')
    return {key: json.loads(found[key]) for key in ('classes', 'preprocessing')}


def prepare(image: np.ndarray, size: Tuple[int, int], preprocessing: Dict[str, Any]) -> np.ndarray:
    """An image as an exported model takes it.

    Args:
        image (np.ndarray): (height, width, 3), BGR, uint8.
        size (tuple[int, int]): Height and width of the model's input.
        preprocessing (dict): Of the model's metadata.

    Returns:
        np.ndarray: (1, 3, height, width), float32.
    """
    image = cv2.resize(image, size[::-1]).astype(np.float32)
    if preprocessing['channels'] == 'RGB':
        image = image[..., ::-1]
    image = (image - np.float32(preprocessing['mean'])) / np.float32(preprocessing['std'])
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)


def to_image_pixels(outputs: Dict[str, np.ndarray], size: Tuple[int, int], image: np.ndarray) -> Detections:
    """Detections of the first image of a batch in pixels of that image, before it was resized to ``size``."""
    scale = np.array([image.shape[1] / size[1], image.shape[0] / size[0]] * 2, dtype=np.float32)
    return Detections(outputs['boxes'][0] * scale, outputs['scores'][0], outputs['labels'][0])


def coco_results(image_id: int, detections: Detections, category_ids: List[int]) -> List[dict]:
    """Detections as rows of COCO's results."""
    return [
        dict(
            image_id=image_id,
            category_id=category_ids[int(label)],
            bbox=[float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])],
            score=float(score),
        )
        for box, score, label in zip(*detections)
    ]
