#!/usr/bin/env python
"""Detect objects in an image or in all images of a folder; write pictures (vis/) and JSON files (preds/).

python demo/image_demo.py IMAGE_OR_FOLDER CONFIG --weights CHECKPOINT --out-dir outputs
"""

import argparse
from pathlib import Path
from typing import List

import lite_detr_mmdet  # noqa: F401  before torch and mmdet: see there

# isort: split
import cv2
from mmdet.apis import DetInferencer
from mmdet.apis.det_inferencer import IMG_EXTENSIONS

from lite_detr_mmdet.utils import existing_checkpoint, existing_config


def find_images(inputs: str) -> List[str]:
    """Paths of the images to run on.

    Raises:
        argparse.ArgumentTypeError: If there are none, or if one cannot be read.
    """
    path = Path(inputs)
    if path.is_dir():
        images = sorted(str(item) for item in path.iterdir() if item.suffix.lower() in IMG_EXTENSIONS)
        if not images:
            raise argparse.ArgumentTypeError(f'must hold images, got the folder {inputs!r} without any')
    elif path.is_file():
        images = [inputs]
    else:
        raise argparse.ArgumentTypeError(f'must be an image or a folder that exists, got {inputs!r}')
    for image in images:
        if not cv2.haveImageReader(image):
            raise argparse.ArgumentTypeError(f'must be readable images, got {image!r}')
    return images


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('inputs', type=find_images, help='image file or folder of images')
    parser.add_argument('config', type=existing_config, help='config file or name of a model')
    parser.add_argument('--weights', type=existing_checkpoint, required=True, help='checkpoint file or URL')
    parser.add_argument('--out-dir', default='outputs', help='folder to write (default: %(default)s)')
    parser.add_argument('--device', help='device to run on (default: a GPU if there is one)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score to draw (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=1, help='images at a time (default: %(default)s)')
    parser.add_argument('--palette', default='none', help="colours: coco, voc, citys, random or none (the dataset's)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    inferencer = DetInferencer(args.config, args.weights, device=args.device, palette=args.palette)
    inferencer(
        args.inputs,
        batch_size=args.batch_size,
        pred_score_thr=args.score_thr,
        out_dir=args.out_dir,
        no_save_pred=False,
    )
    print(f'{len(args.inputs)} images: pictures in {args.out_dir}/vis, predictions in {args.out_dir}/preds')


if __name__ == '__main__':
    main()
