#!/usr/bin/env python
"""AP of a detector on whole images and on overlapping tiles (sahi), by the size of the objects.

python benchmarks/sliced_inference.py ANNOTATIONS IMAGES WEIGHTS [--model NAME] [--tile 256] [--out RESULT]

Whole images go through the test pipeline of the config, and so does each tile, which it enlarges to the same size.
Tiles are merged by sahi's defaults, together with the detections on the whole image.
"""

import argparse
import json
import time
from pathlib import Path

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
import numpy as np
from pycocotools.coco import COCO

from lite_detr_mmdet import accelerate, adapters
from lite_detr_mmdet.adapters.optional import require
from lite_detr_mmdet.analysis.environment import describe_environment
from lite_detr_mmdet.analysis.records import Record
from lite_detr_mmdet.evaluation.coco_stats import coco_stats
from lite_detr_mmdet.output_files import output_file

METRICS = ('AP', 'AP50', 'AP75', 'AP small', 'AP medium', 'AP large')
LOWEST_SCORE = 0.01


def detect(model: 'adapters.SahiModel', path: str, tile: int, overlap: float) -> list:
    """sahi's predictions on an image; ``tile=0`` does not cut it."""
    predict = require('sahi.predict', 'sahi')
    if not tile:
        return predict.get_prediction(path, model, verbose=0).object_prediction_list
    found = predict.get_sliced_prediction(
        path, model, tile, tile, overlap_height_ratio=overlap, overlap_width_ratio=overlap, verbose=0
    )
    return found.object_prediction_list


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', type=Path, help='annotation file in COCO format')
    parser.add_argument('images', type=Path, help='folder of the images')
    parser.add_argument('weights', help='checkpoint')
    parser.add_argument('--model', help='name of a model or config (default: the config in the weights)')
    parser.add_argument('--tile', type=int, default=256, help='side of a tile in pixels (default: %(default)s)')
    parser.add_argument('--overlap', type=float, default=0.2, help='overlap of tiles (default: %(default)s)')
    parser.add_argument('--limit', type=int, help='only the first images')
    parser.add_argument('--out', type=output_file, help='file to write, .json')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    coco = COCO(str(args.annotations))
    ids = sorted(coco.getImgIds())[: args.limit]
    model = adapters.SahiModel(args.model, args.weights, score_thr=LOWEST_SCORE)
    if model.device.type == 'cpu':
        accelerate(model.model.model, verbose=False)
    names = {category['name']: category['id'] for category in coco.loadCats(coco.getCatIds())}
    rows = []
    for name, tile in (('whole images', 0), (f'tiles of {args.tile}', args.tile)):
        found, seconds = [], []
        for image in coco.loadImgs(ids):
            start = time.perf_counter()
            predictions = detect(model, str(args.images / image['file_name']), tile, args.overlap)
            seconds.append(time.perf_counter() - start)
            found += [
                dict(
                    image_id=image['id'],
                    category_id=names[item.category.name],
                    bbox=[float(value) for value in item.bbox.to_xywh()],
                    score=float(item.score.value),
                )
                for item in predictions
            ]
        stats = coco_stats(coco, found, ids, [names[name] for name in model.category_names])
        metrics = {metric: round(value, 4) for metric, value in zip(METRICS, stats)}
        rows.append(dict(name=name, images=len(ids), median_s=round(float(np.median(seconds)), 4), **metrics))
    for row in rows:
        print(json.dumps(row))
    if args.out:
        settings = dict(weights=Path(args.weights).name, tile=args.tile, overlap=args.overlap, images=len(ids))
        environment = describe_environment(model.device.type, 'sahi', 'pycocotools')
        Record('sliced_inference', environment, rows, batch_size=1, dtype='float32', settings=settings).write(args.out)


if __name__ == '__main__':
    main()
