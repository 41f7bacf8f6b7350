"""Compare two sets of detections."""

from typing import NamedTuple, Sequence

import numpy as np

SURE_SCORE = 0.3


class Bounds(NamedTuple):
    """How far apart detections may be that count as equal.

    Attributes:
        box (float): Coordinates of boxes, in pixels.
        score (float): Scores.
        memory (float): The encoder's output, relative L2 norm of the difference.
        logit (float): Logits by which tokens are chosen as queries, in units of the largest one (at least 1).
        all_detections (bool): Whether all detections must agree, or only those with scores above ``SURE_SCORE``.
    """

    box: float
    score: float
    memory: float
    logit: float
    all_detections: bool


BOUNDS = {
    'float32': Bounds(box=2e-3, score=1e-5, memory=1e-4, logit=1e-3, all_detections=True),
    'float16': Bounds(box=2.0, score=3e-2, memory=3e-2, logit=3e-2, all_detections=False),
}


class Detections(NamedTuple):
    """Detections of one image: boxes (n, 4) in pixels, scores (n, ), labels (n, )."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class Difference(NamedTuple):
    """How two sets of detections differ.

    Attributes:
        box (float): Largest difference of a coordinate between matched detections, in pixels.
        score (float): Largest difference of their scores.
        missing (int): Detections of either set that the other one lacks.
        missing_sure (int): Those of them with scores above ``SURE_SCORE``.
        compared (int): Matched detections.
        sure (int): Those of them with scores above ``SURE_SCORE``.
    """

    box: float
    score: float
    missing: int
    missing_sure: int
    compared: int
    sure: int

    def is_within(self, bounds: Bounds) -> bool:
        return (self.missing if bounds.all_detections else self.missing_sure) == 0


def compare_detections(expected: Detections, found: Detections, bounds: Bounds) -> Difference:
    """Match detections by label, box and score; their order does not matter.

    Nearly equal scores may come in a different order, and the last one kept may differ: a detection does not count as
    missing unless its score is above the worst one of the other set by more than the bound. Where none matches, that
    does not excuse any: all are missing.

    Args:
        expected (Detections): Of the model.
        found (Detections): Of the exported model.
        bounds (Bounds): How far apart they may be.
    """
    distance = np.abs(expected.boxes[:, None] - found.boxes).max(-1, initial=0.0)
    score_distance = np.abs(expected.scores[:, None] - found.scores)
    same_label = expected.labels[:, None] == found.labels
    fits = same_label & (distance <= bounds.box) & (score_distance <= bounds.score)
    cost = np.where(fits, distance / bounds.box + score_distance / bounds.score, np.inf)
    pairs, free = [], np.ones(len(found.scores), dtype=bool)
    for index in range(len(expected.scores)):
        candidates = np.where(free, cost[index], np.inf)
        if len(candidates) and np.isfinite(candidates.min()):
            other = int(candidates.argmin())
            free[other] = False
            pairs.append((index, other))
    if pairs:
        missing = [
            *_missed(expected, {pair[0] for pair in pairs}, found, bounds),
            *_missed(found, {pair[1] for pair in pairs}, expected, bounds),
        ]
    else:
        missing = [*map(float, expected.scores), *map(float, found.scores)]
    rows = tuple(zip(*pairs)) or ((), ())
    rows = tuple(np.array(row, dtype=int) for row in rows)
    return Difference(
        box=float(distance[rows].max(initial=0.0)),
        score=float(score_distance[rows].max(initial=0.0)),
        missing=len(missing),
        missing_sure=sum(score > SURE_SCORE for score in missing),
        compared=len(pairs),
        sure=int((expected.scores[rows[0]] > SURE_SCORE).sum()),
    )


def _missed(detections: Detections, matched: set, other: Detections, bounds: Bounds) -> Sequence[float]:
    """Scores of detections that the other set lacks although they are better than its worst one."""
    worst = other.scores.min(initial=np.inf) if len(other.scores) else -np.inf
    return [
        float(score)
        for index, score in enumerate(detections.scores)
        if index not in matched and score > worst + bounds.score
    ]


def relative_l2(expected: np.ndarray, found: np.ndarray) -> float:
    """Relative L2 norm of a difference."""
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30))
