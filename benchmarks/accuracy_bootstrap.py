"""Confidence intervals of COCO AP and of differences between models: a bootstrap over images and seeds.

pycocotools matches boxes once for each run. A replicate then draws images (and seeds) with replacement: AP is computed
anew with each image counted as often as it was drawn, from the matches that are known. Two models are compared on the
same draws, because hard images are hard for both.
"""

import contextlib
import io
from pathlib import Path
from typing import Dict, List, Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

AREAS = dict(AP='all', APS='small', APM='medium', APL='large')
INTERVAL = (2.5, 97.5)  # percentiles


class ImageMatches:
    """Matches of one run, ready to be weighted by image.

    Args:
        ann_file (Path): Ground truth in COCO format.
        detections (list[dict]): COCO results: ``image_id``, ``category_id``, ``bbox`` (x, y, w, h), ``score``.
        category_ids (sequence[int]): The categories that were trained.
    """

    def __init__(self, ann_file: Path, detections: List[dict], category_ids: Sequence[int]) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            coco = COCO(str(ann_file))
            evaluation = COCOeval(coco, coco.loadRes(detections), 'bbox')
            evaluation.params.catIds = list(category_ids)
            evaluation.evaluate()
        params = evaluation.params
        self.num_images = len(params.imgIds)
        self.recall_thresholds = params.recThrs
        self.parts: Dict[str, list] = {name: [] for name in AREAS}
        images = np.array(evaluation.evalImgs, dtype=object).reshape(
            len(params.catIds), len(params.areaRngLbl), self.num_images
        )
        for name, label in AREAS.items():
            for category in images[:, params.areaRngLbl.index(label)]:
                self.parts[name].append(self._collect(category))

    @staticmethod
    def _collect(images: np.ndarray) -> tuple:
        """Detections of one category and size, best first: image, counted or not, places of hits; objects of images.

        Both for each IoU. Precision and recall are needed at hits only: between them precision falls.
        """
        num_objects = np.array([0 if image is None else np.sum(~image['gtIgnore'].astype(bool)) for image in images])
        found = [(index, image) for index, image in enumerate(images) if image is not None and image['dtScores']]
        if not found:
            return np.zeros(0, int), np.zeros((1, 0)), [np.zeros(0, int)], num_objects
        scores = np.concatenate([image['dtScores'] for _, image in found])
        order = np.argsort(-scores, kind='mergesort')  # as pycocotools sorts
        index = np.concatenate([np.full(len(image['dtScores']), number) for number, image in found])[order]
        matched = np.concatenate([image['dtMatches'] for _, image in found], 1)[:, order] > 0
        ignored = np.concatenate([image['dtIgnore'] for _, image in found], 1)[:, order].astype(bool)
        return index, (~ignored).astype(float), [np.flatnonzero(row) for row in matched & ~ignored], num_objects

    def average_precision(self, weights: np.ndarray) -> Dict[str, float]:
        """AP, APS, APM and APL in percent with each image counted ``weights`` times; NaN where there is no object.

        Args:
            weights (np.ndarray): (num_images, ). All ones gives the figures of pycocotools.
        """
        return {
            name: float(
                np.mean([v for v in (self._precision(part, weights) for part in parts) if v is not None] or np.nan)
            )
            for name, parts in self.parts.items()
        }

    def _precision(self, part: tuple, weights: np.ndarray):
        index, counted, hits, num_objects = part
        objects = float(weights @ num_objects)
        if objects == 0:
            return None
        weight = weights[index]
        total = 0.0
        for row, places in zip(counted, hits):
            found = np.cumsum(weight[places])
            precision = found / (np.cumsum(row * weight)[places] + np.spacing(1))
            precision = np.maximum.accumulate(precision[::-1])[::-1]
            position = np.searchsorted(found / objects, self.recall_thresholds, side='left')
            position = position[position < len(precision)]
            total += precision[position].sum() / len(self.recall_thresholds)
        return 100 * total / len(hits)


def draw(runs: Sequence[ImageMatches], generator: np.random.Generator) -> np.ndarray:
    """How often each image is drawn."""
    num_images = runs[0].num_images
    return np.bincount(generator.integers(num_images, size=num_images), minlength=num_images).astype(float)


def compare(
    runs: Dict[int, ImageMatches], others: Dict[int, ImageMatches], replicates: int = 1000, seed: int = 0
) -> Dict[str, dict]:
    """Differences of the means of two models over the seeds that both have, with intervals.

    Args:
        runs (dict[int, ImageMatches]): Runs of one model by seed.
        others (dict[int, ImageMatches]): Runs of the other, on the same images.
        replicates (int): Draws. Defaults to 1000.
        seed (int): Seed of the draws. Defaults to 0.

    Returns:
        dict[str, dict]: For AP, APS, APM and APL: ``difference`` in points, ``low`` and ``high`` (95 %) and ``seeds``.

    Raises:
        ValueError: If the models have no seed in common.
    """
    seeds = sorted(set(runs) & set(others))
    if not seeds:
        raise ValueError(f'the two models have no seed in common: {sorted(runs)} and {sorted(others)}')
    generator = np.random.default_rng(seed)
    ones = np.ones(runs[seeds[0]].num_images)

    def difference(weights: np.ndarray, drawn: Sequence[int]) -> Dict[str, float]:
        values = [(runs[s].average_precision(weights), others[s].average_precision(weights)) for s in drawn]
        return {name: float(np.mean([a[name] - b[name] for a, b in values])) for name in AREAS}

    found = difference(ones, seeds)
    draws = [
        difference(draw(list(runs.values()), generator), generator.choice(seeds, len(seeds)))
        for _ in range(replicates)
    ]
    result = {}
    for name, value in found.items():
        low, high = np.nanpercentile([replicate[name] for replicate in draws], INTERVAL)
        result[name] = dict(difference=value, low=float(low), high=float(high), seeds=len(seeds))
    return result
