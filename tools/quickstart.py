#!/usr/bin/env python
"""The main job from beginning to end on generated images: generate, train, evaluate, draw.

Trains a small Lite-DINO (``--baseline``: DINO of the same size) on generated shapes, evaluates the last checkpoint on
the held-out images with COCO's metric and draws predictions. A picture of the ground truth comes first. A run that was
interrupted goes on where it stopped. Images go to ``data/shapes`` and results to ``work_dirs``, below the current
folder.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

SCRIPTS = Path(__file__).resolve().parent.parent  # the source tree, or what an installed package ships
LITE = 'lite-dino-4scale_h3l1-2p1x1_efficientnet-lite0_1xb8-8e_shapes'
BASELINE = 'dino-4scale_efficientnet-lite0_1xb8-8e_shapes'
DATA_ROOT = Path('data/shapes')  # where the configs expect it
NUM_PICTURES = 8
COLORS = ((60, 20, 220), (60, 140, 0), (230, 60, 30))  # BGR, the palette of the config


def run(script: str, *arguments) -> float:
    """Run a script with this interpreter; return the seconds that it took."""
    print('+', script, *arguments, flush=True)
    start = time.perf_counter()
    subprocess.run([sys.executable, str(SCRIPTS / script), *map(str, arguments)], check=True)
    return time.perf_counter() - start


def read_metrics(work_dir: Path) -> dict:
    """Metrics of the newest evaluation below ``work_dir``."""
    files = [path for path in work_dir.glob('*/*.json') if re.fullmatch(r'\d{8}_\d{6}', path.stem)]
    return json.loads(max(files).read_text().strip().splitlines()[-1])


def draw_ground_truth(data_root: Path, file: Path, columns: int = 4, scale: int = 2) -> None:
    """Draw the first held-out images with their boxes, side by side, into one picture.

    Args:
        data_root (Path): Folder of the generated set.
        file (Path): Picture to write.
        columns (int): Images in a row. Defaults to 4.
        scale (int): Pixels of the picture for one of an image. Defaults to 2.
    """
    content = json.loads((data_root / 'annotations' / 'val.json').read_text())
    pictures = []
    for image in content['images'][:NUM_PICTURES]:
        picture = cv2.imread(str(data_root / 'val' / image['file_name']))
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
        for item in content['annotations']:
            if item['image_id'] == image['id']:
                x, y, width, height = (round(scale * value) for value in item['bbox'])
                cv2.rectangle(picture, (x, y), (x + width, y + height), COLORS[item['category_id'] - 1], 2)
        pictures.append(picture)
    rows = [np.concatenate(pictures[start : start + columns], 1) for start in range(0, len(pictures), columns)]
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.concatenate(rows))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--baseline', action='store_true', help='train DINO instead, for comparison')
    parser.add_argument('--seed', type=int, help='train with this seed, in a folder of its own')
    parser.add_argument('--min-map', type=float, default=0.6, help='fail below this mAP (default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    start = time.perf_counter()
    config = BASELINE if args.baseline else LITE
    work_dir = Path('work_dirs') / (config if args.seed is None else f'{config}_seed{args.seed}')
    seed = [] if args.seed is None else ['--cfg-options', f'randomness.seed={args.seed}']
    run('tools/dataset_converters/generate_shapes.py', DATA_ROOT)
    ground_truth = work_dir / 'ground_truth.png'
    draw_ground_truth(DATA_ROOT, ground_truth)
    print(f'first picture, held-out images with their boxes: {ground_truth}', flush=True)
    seconds = run('tools/train.py', config, '--work-dir', work_dir, '--resume', *seed)
    checkpoint = Path((work_dir / 'last_checkpoint').read_text().strip())
    run('tools/test.py', config, checkpoint, '--work-dir', work_dir / 'test')
    metrics = read_metrics(work_dir / 'test')

    samples = work_dir / 'samples'
    samples.mkdir(exist_ok=True)
    for image in sorted((DATA_ROOT / 'val').glob('*.png'))[:NUM_PICTURES]:
        (samples / image.name).write_bytes(image.read_bytes())
    run('demo/image_demo.py', samples, config, '--weights', checkpoint, '--out-dir', work_dir / 'predictions')

    total = time.perf_counter() - start
    print(f'\n{config}: trained in {seconds / 60:.1f} minutes, all in {total / 60:.1f}')
    for name in ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l'):
        print(f'held-out bbox {name:7} {metrics[f"coco/bbox_{name}"]:.3f}')
    pictures = sorted((work_dir / 'predictions' / 'vis').iterdir())
    print('pictures of predictions:', *pictures, sep='\n  ')
    if metrics['coco/bbox_mAP'] < args.min_map:
        raise SystemExit(f'mAP {metrics["coco/bbox_mAP"]:.3f} is below {args.min_map}')


if __name__ == '__main__':
    main()
