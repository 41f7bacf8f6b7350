#!/usr/bin/env python
"""COCO's metric by pycocotools and by faster-coco-eval: the same numbers, and the time of each.

python benchmarks/coco_evaluation.py [--images 1000] [--objects 8] [--detections 100] [--out RESULT]

Ground truth and detections are random, with a fixed seed; what is timed is ``compute_metrics``, in turns, in one
process.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
import numpy as np
from mmdet.registry import METRICS
from mmengine.registry import init_default_scope

from lite_detr_mmdet.analysis.environment import describe_environment
from lite_detr_mmdet.analysis.records import Record
from lite_detr_mmdet.output_files import output_file

NUM_CLASSES = 10


def make_scene(folder: Path, num_images: int, objects: int, detections: int) -> tuple:
    """Annotation file, and results in the form of mmdet."""
    rng = np.random.default_rng(0)
    images, annotations, results = [], [], []
    for image_id in range(num_images):
        images.append(dict(id=image_id, file_name=f'{image_id}.jpg', width=640, height=480))
        sizes = np.exp(rng.uniform(np.log(8), np.log(200), (objects, 2)))
        corners = rng.uniform(0, 1, (objects, 2)) * (np.array([640, 480]) - sizes)
        labels = rng.integers(0, NUM_CLASSES, objects)
        for corner, size, label in zip(corners, sizes, labels):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=int(label) + 1,
                    bbox=[*corner.tolist(), *size.tolist()],
                    area=float(size.prod()),
                    iscrowd=0,
                )
            )
        chosen = rng.integers(0, objects, detections)
        boxes = np.concatenate([corners, corners + sizes], 1)[chosen]
        boxes += rng.normal(0, 0.1, boxes.shape) * np.tile(sizes[chosen], 2)
        scores = rng.random(detections)
        results.append(
            (dict(img_id=image_id), dict(img_id=image_id, bboxes=boxes, scores=scores, labels=labels[chosen]))
        )
    path = folder / 'annotations.json'
    categories = [dict(id=index + 1, name=str(index)) for index in range(NUM_CLASSES)]
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return path, results


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=1000, help='images (default: %(default)s)')
    parser.add_argument('--objects', type=int, default=8, help='objects on each (default: %(default)s)')
    parser.add_argument('--detections', type=int, default=100, help='detections on each (default: %(default)s)')
    parser.add_argument('--repeat', type=int, default=3, help='rounds (default: %(default)s)')
    parser.add_argument('--out', type=output_file, help='file to write, .json')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    init_default_scope('mmdet')
    seconds, numbers = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        path, results = make_scene(Path(folder), args.images, args.objects, args.detections)
        for _ in range(args.repeat):
            for name in ('CocoMetric', 'FasterCocoMetric'):
                metric = METRICS.build(dict(type=name, ann_file=str(path), metric='bbox'))
                metric.dataset_meta = dict(classes=tuple(map(str, range(NUM_CLASSES))))
                start = time.perf_counter()
                numbers[name] = metric.compute_metrics(results)
                seconds.setdefault(name, []).append(time.perf_counter() - start)
    median = {name: round(float(np.median(times)), 3) for name, times in seconds.items()}
    results = dict(
        median_s=median,
        ratio=round(median['CocoMetric'] / median['FasterCocoMetric'], 2),
        equal=numbers['CocoMetric'] == numbers['FasterCocoMetric'],
        mAP=numbers['CocoMetric']['bbox_mAP'],
    )
    print(json.dumps(results))
    if args.out:
        scene = dict(images=args.images, objects=args.objects, detections=args.detections)
        environment = describe_environment('cpu', 'faster-coco-eval', 'pycocotools')
        Record('coco_evaluation', environment, results, repeat=args.repeat, settings=scene).write(args.out)


if __name__ == '__main__':
    main()
