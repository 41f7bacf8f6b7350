"""COCO's metric computed by faster-coco-eval."""

from typing import Dict

from mmdet.evaluation import CocoMetric
from mmdet.evaluation.metrics import coco_metric
from mmdet.registry import METRICS


@METRICS.register_module(force=True)  # OneDL's mmdet has one of this name
class FasterCocoMetric(CocoMetric):
    """mmdet's ``CocoMetric`` with the same numbers from C++ instead of Python.

    A config or ``--cfg-options val_evaluator.type=FasterCocoMetric`` chooses it. Arguments are those of
    ``CocoMetric``.

    Raises:
        ImportError: If faster-coco-eval is not installed.
    """

    def __init__(self, *args, **kwargs) -> None:
        try:
            from faster_coco_eval import COCOeval_faster
        except ImportError as error:
            raise ImportError(
                "FasterCocoMetric needs faster-coco-eval: pip install faster-coco-eval, or 'lite-detr-mmdet[adapters]'"
            ) from error
        self._evaluation = COCOeval_faster
        super().__init__(*args, **kwargs)

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """Compute metrics from the collected results of all images."""
        original = coco_metric.COCOeval  # mmdet looks it up here
        coco_metric.COCOeval = self._evaluation
        try:
            return super().compute_metrics(results)
        finally:
            coco_metric.COCOeval = original
