#!/usr/bin/env python
"""Detect objects in an image or in all images of a folder; write pictures (vis/) and JSON files (preds/).

    python demo/image_demo.py IMAGE_OR_FOLDER CONFIG --weights CHECKPOINT --out-dir outputs
    python demo/image_demo.py IMAGE_OR_FOLDER --weights CHECKPOINT

Without a config, that of the checkpoint is used. Images of a folder that cannot be read are named and skipped.
"""

import argparse
import sys
from pathlib import Path

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
from mmdet.apis.det_inferencer import IMG_EXTENSIONS

from lite_detr_mmdet import Detector
from lite_detr_mmdet.checkpoint import CheckpointError, DownloadError
from lite_detr_mmdet.datasets.checks import DatasetError
from lite_detr_mmdet.utils import existing_checkpoint, existing_config, silence_upstream_warnings


def existing_images(inputs: str) -> Path:
    """An image file, or a folder that holds images.

    Raises:
        argparse.ArgumentTypeError: If it is neither.
    """
    path = Path(inputs)
    if path.is_dir():
        if not any(item.suffix.lower() in IMG_EXTENSIONS for item in path.iterdir()):
            raise argparse.ArgumentTypeError(f'must hold images, got the folder {inputs!r} without any')
    elif not path.is_file():
        raise argparse.ArgumentTypeError(f'must be an image or a folder that exists, got {inputs!r}')
    return path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('inputs', type=existing_images, help='image file or folder of images')
    parser.add_argument(
        'config', nargs='?', type=existing_config, help='config file or name of a model (default: of the checkpoint)'
    )
    parser.add_argument(
        '--weights', type=existing_checkpoint, help='checkpoint file or URL (default: the released ones of CONFIG)'
    )
    parser.add_argument('--out-dir', default='outputs', help='folder to write (default: %(default)s)')
    parser.add_argument('--device', help='device to run on (default: a GPU if there is one)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score to keep (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=1, help='images at a time (default: %(default)s)')
    parser.add_argument('--palette', default='none', help="colours: coco, voc, citys, random or none (the dataset's)")
    args = parser.parse_args()
    if args.config is None and args.weights is None:
        parser.error('CONFIG or --weights must be given')
    if args.batch_size < 1:
        parser.error(f'--batch-size must be at least 1, got {args.batch_size}')
    return args


def main() -> None:
    args = parse_args()
    silence_upstream_warnings()
    try:
        detector = Detector(args.config, args.weights, device=args.device, palette=args.palette)
        results = detector(
            args.inputs,
            batch_size=args.batch_size,
            pred_score_thr=args.score_thr,
            out_dir=args.out_dir,
            no_save_pred=False,
        )
    except (CheckpointError, DatasetError, DownloadError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    found = len(results['predictions'])
    print(f'{found} images: pictures in {args.out_dir}/vis, predictions in {args.out_dir}/preds')
    for item in results['skipped']:
        print(f'skipped {item["input"]}: {item["error"]}', file=sys.stderr)
    if not found:
        raise SystemExit('error: no image could be read')


if __name__ == '__main__':
    main()
