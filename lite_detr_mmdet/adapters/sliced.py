"""Sliced inference with sahi: large images are cut into overlapping tiles, and small objects grow."""

from pathlib import Path
from typing import Any, List, Optional, Union

import numpy as np

from ..apis import Detector
from .optional import require

DetectionModel = require('sahi.models.base', 'sahi').DetectionModel
ObjectPrediction = require('sahi.prediction', 'sahi').ObjectPrediction


class SahiModel(DetectionModel):
    """A detector as sahi's functions want it.

    ``sahi.predict.get_sliced_prediction('image.jpg', SahiModel(weights='checkpoint.pth'), 512, 512)``

    Args:
        model (str | Path | Detector, optional): A detector, or name of a model or config, as for ``Detector``.
            Defaults to None: the config in the weights.
        weights (str | Path, optional): As for ``Detector``. Defaults to None.
        device (str, optional): Device. Defaults to None: a GPU if there is one.
        score_thr (float): Smallest score to keep. Defaults to 0.3.
        batch_size (int): Tiles at a time. Defaults to 1.
    """

    def __init__(
        self,
        model: Union[str, Path, Detector, None] = None,
        weights: Union[str, Path, None] = None,
        device: Optional[str] = None,
        score_thr: float = 0.3,
        batch_size: int = 1,
    ) -> None:
        if not isinstance(model, Detector):
            model = Detector(model, weights, device, show_progress=False)
        self.batch_size = batch_size
        device = str(next(model.model.parameters()).device)
        super().__init__(model=model, device=device, confidence_threshold=score_thr)

    def set_model(self, model: Detector, **kwargs: Any) -> None:
        """Take a detector; its class names become sahi's categories."""
        self.model = model
        self.category_names = list(model.model.dataset_meta['classes'])
        self.category_mapping = {str(index): name for index, name in enumerate(self.category_names)}

    @property
    def num_categories(self) -> int:
        """Number of classes."""
        return len(self.category_names)

    @property
    def has_mask(self) -> bool:
        """Boxes only."""
        return False

    def perform_inference(self, image: np.ndarray) -> None:
        """Detect in one image, (H, W, 3), RGB."""
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: List[np.ndarray]) -> None:
        """Detect in images, each (H, W, 3), RGB."""
        inputs = [np.ascontiguousarray(image[..., ::-1]) for image in images]
        self._original_predictions = self.model(inputs, batch_size=self.batch_size, pred_score_thr=0.0)['predictions']

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list: Any = None, full_shape_list: Any = None
    ) -> None:
        """Predictions of each image as sahi's objects, to be moved by ``shift_amount_list`` (x, y)."""
        count = len(self._original_predictions)
        shifts = _per_image(shift_amount_list or [[0, 0]], count)
        shapes = _per_image(full_shape_list or [None], count)
        self._object_prediction_list_per_image = [
            [
                ObjectPrediction(
                    bbox=[float(value) for value in box],
                    score=score,
                    category_id=label,
                    category_name=self.category_names[label],
                    shift_amount=shift,
                    full_shape=shape,
                )
                for box, score, label in zip(found['bboxes'], found['scores'], found['labels'])
                if score >= self.confidence_threshold and box[2] > box[0] and box[3] > box[1]
            ]
            for found, shift, shape in zip(self._original_predictions, shifts, shapes)
        ]


def _per_image(values: list, count: int) -> list:
    """sahi gives one pair, or a list of one pair for each image."""
    if values[0] is not None and not isinstance(values[0], (list, tuple)):
        values = [values]
    return values * count if len(values) == 1 else values
