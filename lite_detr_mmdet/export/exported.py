"""An exported model from images to detections, with what its metadata say."""

import json
from pathlib import Path
from typing import Any, Dict, List, Tuple

import cv2
import numpy as np

from .compare import Detections

LARGEST_SIDE = 8192  # pixels of the model's input: what a file asks for must fit the memory
# Written by export_onnx, JSON each.
METADATA = ('classes', 'num_classes', 'preprocessing')


def read_metadata(path: Path) -> Dict[str, Any]:
    """Classes and preprocessing of an exported model, which a stranger may have written.

    Args:
        path (Path): ONNX, or OpenVINO's ``.xml``.

    Returns:
        dict: ``classes`` (list[str]), ``num_classes`` (int) and ``preprocessing`` (dict).

    Raises:
        ValueError: If the file lacks one of them, they are not what they should be, or do not name each class.
    """
    import openvino

    model = openvino.Core().read_model(str(path)) if Path(path).suffix == '.xml' else None
    if model is not None:
        found = {
            key: str(model.get_rt_info(['framework', key]).value)
            for key in METADATA
            if model.has_rt_info(['framework', key])
        }
    else:
        import onnx

        found = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    missing = [key for key in METADATA if key not in found]
    if missing:
        raise ValueError(f'{path} has no metadata `{missing[0]}`: it must come from export_onnx.py')
    try:
        metadata = {key: json.loads(found[key]) for key in METADATA}
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} must have JSON as its metadata: {error}') from error
    fault = find_fault(metadata['classes'], metadata['preprocessing'])
    if fault:
        raise ValueError(f'{path} must come from export_onnx.py: in its metadata, {fault}')
    if len(metadata['classes']) != metadata['num_classes']:
        raise ValueError(
            f'{path} must name each of its classes in its metadata `classes`, expected {metadata["num_classes"]!r} '
            f'names, found {len(metadata["classes"])}'
        )
    return metadata


def find_fault(classes: Any, preprocessing: Any) -> str:
    """What is wrong with metadata, '' if nothing is."""
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return 'classes must be a list of names'
    if not isinstance(preprocessing, dict) or preprocessing.get('channels') not in ('RGB', 'BGR'):
        return 'preprocessing must have the channels RGB or BGR'
    for key, lowest in (('mean', -1e6), ('std', 1e-6)):
        values = preprocessing.get(key)
        is_list = isinstance(values, list) and len(values) == 3
        if not is_list or not all(type(value) in (int, float) and lowest <= value <= 1e6 for value in values):
            return f'{key} must be three numbers'
    return ''


def prepare(image: np.ndarray, size: Tuple[int, int], preprocessing: Dict[str, Any]) -> np.ndarray:
    """An image as an exported model takes it.

    Args:
        image (np.ndarray): (height, width, 3), BGR, uint8.
        size (tuple[int, int]): Height and width of the model's input.
        preprocessing (dict): Of the model's metadata.

    Returns:
        np.ndarray: (1, 3, height, width), float32.

    Raises:
        ValueError: If the size is not fixed, or larger than any model needs.
    """
    if len(size) != 2 or not all(isinstance(side, int) and 1 <= side <= LARGEST_SIDE for side in size):
        raise ValueError(f'the model must take images of a fixed size up to {LARGEST_SIDE} pixels, got {size}')
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
    """Detections as rows of COCO's results.

    Raises:
        ValueError: If a label is not the number of a class.
    """
    if any(not 0 <= label < len(category_ids) for label in detections.labels):
        raise ValueError(f'the labels of the model must be from 0 to {len(category_ids) - 1}, one for each class')
    return [
        dict(
            image_id=image_id,
            category_id=category_ids[int(label)],
            bbox=[float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])],
            score=float(score),
        )
        for box, score, label in zip(*detections)
    ]
