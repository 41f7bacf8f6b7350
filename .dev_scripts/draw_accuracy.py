#!/usr/bin/env python
"""Draw the results of the accuracy study: AP against epochs and time, hits and misses on small objects.

    python .dev_scripts/draw_accuracy.py curves bccd
    python .dev_scripts/draw_accuracy.py curves hit_uav_tiles --round _100_queries
    python .dev_scripts/draw_accuracy.py hits hit_uav --data-root data/hit_uav --work-dir work_dirs/accuracy

`curves` reads accuracyROUND.json and accuracy_steps_SETROUND.json in benchmarks/results and writes
docs/assets/accuracy_SET.svg.
`hits` reads the detections of the runs and writes docs/assets/hits_SET.jpg: objects that a model found in green, those
that it missed in red, its false alarms in blue.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Sequence

import cv2
import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
import numpy as np
from pycocotools import mask as coco_mask

ROOT = Path(__file__).resolve().parent.parent
RESULTS, ASSETS = ROOT / 'benchmarks' / 'results', ROOT / 'docs' / 'assets'
PAIR = {'dino-4scale': ('DINO', '#0071bc'), 'lite-dino_h3l1-2p1x3': ('Lite-DINO', '#c1272d')}
ANNOTATIONS = dict(bccd='annotations/instances_test.json', hit_uav='test.json', hit_uav_tiles='test.json')
SCORE, IOU, SMALL = 0.3, 0.5, 32**2
GREEN, RED, BLUE = (80, 200, 60), (60, 60, 230), (230, 140, 40)  # of OpenCV


def draw_curves(dataset: str, updates_per_epoch: int, study_round: str = '') -> Path:
    """AP on the validation images against epochs, and against CPU minutes; a thin line for each seed, a thick mean."""
    records = json.loads((RESULTS / f'accuracy{study_round}.json').read_text())['records']
    steps = json.loads((RESULTS / f'accuracy_steps_{dataset}{study_round}.json').read_text())['results']
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout='constrained')
    for model, (label, colour) in PAIR.items():
        curves = [record['curve'] for record in records if (record['dataset'], record['model']) == (dataset, model)]
        curves = [np.array(curve) for curve in curves if curve]
        if not curves:
            raise SystemExit(f'error: accuracy{study_round}.json has no curve of {model} on {dataset}')
        minutes = updates_per_epoch * steps[model] / 60
        for panel, factor in zip(axes, (1, minutes)):
            for curve in curves:
                panel.plot(curve[:, 0] * factor, 100 * curve[:, 1], color=colour, linewidth=0.7, alpha=0.5)
            mean = np.mean(curves, 0)
            panel.plot(mean[:, 0] * factor, 100 * mean[:, 1], color=colour, marker='o', markersize=4, label=label)
    axes[0].set(xlabel='epoch', ylabel='AP on the validation images')
    axes[1].set(xlabel='CPU minutes of training')
    axes[0].legend(frameon=False)
    for panel in axes:
        panel.grid(alpha=0.3)
    out = ASSETS / f'accuracy_{dataset}.svg'
    figure.savefig(out, metadata=dict(Date=None))
    return out


def mark(image: np.ndarray, objects: List[dict], detections: List[dict]) -> np.ndarray:
    """Draw hits, misses and false alarms; a detection hits the object of its class that it overlaps most."""
    free = list(objects)
    for found in sorted(detections, key=lambda found: -found['score']):
        same = [item for item in free if item['category_id'] == found['category_id']]
        overlaps = coco_mask.iou([found['bbox']], [item['bbox'] for item in same], [0] * len(same)) if same else [[0]]
        best = int(np.argmax(overlaps[0]))
        if same and overlaps[0][best] >= IOU:
            free.remove(same[best])
            _box(image, same[best]['bbox'], GREEN)
        else:
            _box(image, found['bbox'], BLUE)
    for item in free:
        _box(image, item['bbox'], RED)
    return image


def _box(image: np.ndarray, box: Sequence[float], colour: tuple) -> None:
    x, y, w, h = (round(value) for value in box)
    cv2.rectangle(image, (x, y), (x + w, y + h), colour, 2)


def draw_hits(dataset: str, data_root: Path, work_dir: Path, count: int) -> Path:
    """A row of test images for each model: those with most small objects."""
    truth = json.loads((data_root / ANNOTATIONS[dataset]).read_text())
    objects: Dict[int, List[dict]] = defaultdict(list)
    for item in truth['annotations']:
        objects[item['image_id']].append(item)
    small = {image: sum(item['area'] < SMALL for item in items) for image, items in objects.items()}
    chosen = sorted(small, key=lambda image: (-small[image], image))[: 6 * count : 6]  # not frames of one scene
    files = {image['id']: image['file_name'] for image in truth['images']}
    rows = []
    for model, (label, _) in PAIR.items():
        path = work_dir / dataset / model / 'seed0' / 'detections.bbox.json'
        detections = json.loads(path.read_text())
        trained = {item['category_id'] for item in detections}
        found = defaultdict(list)
        for item in detections:
            if item['score'] >= SCORE:
                found[item['image_id']].append(item)
        images = [
            mark(
                cv2.imread(str(data_root / 'images' / files[image])),
                [item for item in objects[image] if item['category_id'] in trained],
                found[image],
            )
            for image in chosen
        ]
        row = cv2.hconcat(images)
        cv2.putText(row, label, (8, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2, cv2.LINE_AA)
        rows.append(row)
    picture = cv2.vconcat(rows)
    scale = 1200 / picture.shape[1]
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    out = ASSETS / f'hits_{dataset}.jpg'
    cv2.imwrite(str(out), picture, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='action', required=True)
    curves = commands.add_parser('curves', help='AP against epochs and time')
    curves.add_argument('dataset', choices=tuple(ANNOTATIONS))
    curves.add_argument('--round', default='', help='end of the names of the records, such as _100_queries')
    hits = commands.add_parser('hits', help='objects found and missed')
    hits.add_argument('dataset', choices=tuple(ANNOTATIONS))
    hits.add_argument('--data-root', type=Path, required=True)
    hits.add_argument('--work-dir', type=Path, default=Path('work_dirs/accuracy'))
    hits.add_argument('--count', type=int, default=3, help='images (default: %(default)s)')
    args = parser.parse_args()
    if args.action == 'curves':
        updates = dict(bccd=103, hit_uav=450, hit_uav_tiles=1078)[args.dataset]
        print(draw_curves(args.dataset, updates, args.round))
    else:
        print(draw_hits(args.dataset, args.data_root, args.work_dir, args.count))


if __name__ == '__main__':
    main()
