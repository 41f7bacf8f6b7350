#!/usr/bin/env python
"""The main job from beginning to end on generated images: generate, train, evaluate, draw.

Trains a small Lite-DINO (``--baseline``: the stock DINO of the same size) on generated shapes, evaluates the last
checkpoint on the held-out images with COCO's metric and draws predictions. A run that was interrupted goes on where it
stopped. Images go to ``data/shapes`` and results to ``work_dirs``, below the current folder.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent  # the source tree, or what an installed package ships
LITE = 'lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_shapes'
BASELINE = 'dino-4scale_r18_1xb4-12e_shapes'
DATA_ROOT = Path('data/shapes')  # where the configs expect it
NUM_PICTURES = 8


def run(script: str, *arguments) -> float:
    """Run a script with this interpreter; return the seconds that it took."""
    print('+', script, *arguments, flush=True)
    start = time.perf_counter()
    # Threads spin for microseconds, then sleep: spinning longer is many times slower where other programs use the
    # processor, too; sleeping at once takes a third longer where none does.
    environment = {'GOMP_SPINCOUNT': '1000', **os.environ}
    subprocess.run([sys.executable, str(SCRIPTS / script), *map(str, arguments)], env=environment, check=True)
    return time.perf_counter() - start


def read_metrics(work_dir: Path) -> dict:
    """Metrics of the newest evaluation below ``work_dir``."""
    files = [path for path in work_dir.glob('*/*.json') if re.fullmatch(r'\d{8}_\d{6}', path.stem)]
    return json.loads(max(files).read_text().strip().splitlines()[-1])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--baseline', action='store_true', help='train stock DINO instead, for comparison')
    parser.add_argument('--min-map', type=float, default=0.5, help='fail below this mAP (default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    config = BASELINE if args.baseline else LITE
    work_dir = Path('work_dirs') / config
    run('tools/dataset_converters/generate_shapes.py', DATA_ROOT)
    seconds = run('tools/train.py', config, '--work-dir', work_dir, '--resume')
    checkpoint = Path((work_dir / 'last_checkpoint').read_text().strip())
    run('tools/test.py', config, checkpoint, '--work-dir', work_dir / 'test')
    metrics = read_metrics(work_dir / 'test')

    samples = work_dir / 'samples'
    samples.mkdir(exist_ok=True)
    for image in sorted((DATA_ROOT / 'val').glob('*.png'))[:NUM_PICTURES]:
        (samples / image.name).write_bytes(image.read_bytes())
    run('demo/image_demo.py', samples, config, '--weights', checkpoint, '--out-dir', work_dir / 'predictions')

    print(f'\n{config}: trained in {seconds / 60:.1f} minutes')
    for name in ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l'):
        print(f'held-out bbox {name:7} {metrics[f"coco/bbox_{name}"]:.3f}')
    pictures = sorted((work_dir / 'predictions' / 'vis').iterdir())
    print('pictures of predictions:', *pictures, sep='\n  ')
    if metrics['coco/bbox_mAP'] < args.min_map:
        raise SystemExit(f'mAP {metrics["coco/bbox_mAP"]:.3f} is below {args.min_map}')


if __name__ == '__main__':
    main()
