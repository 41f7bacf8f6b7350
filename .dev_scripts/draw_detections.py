#!/usr/bin/env python
"""Draw the detections of a checkpoint on a few images, side by side, as one picture of a page.

python .dev_scripts/draw_detections.py WEIGHTS IMAGE [IMAGE...] --out docs/detections.jpg
"""

import argparse
from pathlib import Path

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
import cv2
import numpy as np

from lite_detr_mmdet import Detector

COLOURS = [(60, 60, 230), (200, 120, 0), (40, 160, 40), (0, 150, 230), (180, 40, 160)]  # BGR, in the order of classes
GAP = 8


def draw(path: Path, detector: Detector, height: int, threshold: float) -> np.ndarray:
    """An image, enlarged to a height, with boxes, names and scores."""
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f'error: {path} cannot be read as an image')
    factor = height / image.shape[0]
    picture = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    names = detector.model.dataset_meta['classes']
    found = detector(str(path), pred_score_thr=threshold)['predictions'][0]
    for box, score, label in zip(found['bboxes'], found['scores'], found['labels']):
        if score < threshold:
            continue
        left, top, right, bottom = (round(value * factor) for value in box)
        colour = COLOURS[label % len(COLOURS)]
        cv2.rectangle(picture, (left, top), (right, bottom), colour, 2, cv2.LINE_AA)
        text = f'{names[label]} {score:.2f}'
        (width, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)
        x, y = min(left, picture.shape[1] - width - 2), max(top, tall + 5)
        cv2.rectangle(picture, (x, y - tall - 5), (x + width + 3, y), colour, -1)
        cv2.putText(picture, text, (x + 1, y - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('weights', type=Path, help='checkpoint that holds its config')
    parser.add_argument('images', type=Path, nargs='+', help='images, drawn from left to right')
    parser.add_argument('--out', type=Path, required=True, help='picture to write')
    parser.add_argument('--height', type=int, default=360, help='height in pixels (default: %(default)s)')
    parser.add_argument('--score-thr', type=float, default=0.4, help='lowest score to draw (default: %(default)s)')
    args = parser.parse_args()
    detector = Detector(weights=args.weights, device='cpu', show_progress=False)
    pictures = [draw(path, detector, args.height, args.score_thr) for path in args.images]
    gap = np.full((args.height, GAP, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (gap, picture)][1:]
    cv2.imwrite(str(args.out), np.concatenate(row, axis=1), [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == '__main__':
    main()
