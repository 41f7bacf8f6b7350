#!/usr/bin/env python
"""Detect objects in an image or in all images of a folder; write pictures (vis/) and JSON files (preds/).

python demo/image_demo.py IMAGE_OR_FOLDER CONFIG --weights CHECKPOINT --out-dir outputs
"""

import argparse
from pathlib import Path

from mmdet.apis import DetInferencer

import lite_detr_mmdet  # noqa: F401  registers the models


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('inputs', help='image file or folder of images')
    parser.add_argument('config', help='config file')
    parser.add_argument('--weights', required=True, help='checkpoint file or address')
    parser.add_argument('--out-dir', default='outputs', help='folder to write (default: %(default)s)')
    parser.add_argument('--device', help='device to run on (default: a GPU if there is one)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score to draw (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=1, help='images at a time (default: %(default)s)')
    parser.add_argument('--palette', default='none', help="colours: coco, voc, citys, random or none (the dataset's)")
    args = parser.parse_args()
    for name, path in dict(inputs=args.inputs, config=args.config, weights=args.weights).items():
        if '://' not in path and not Path(path).exists():
            parser.error(f'{name} must be there to be read, got {path!r}')
    return args


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
    print(f'pictures in {args.out_dir}/vis, predictions in {args.out_dir}/preds')


if __name__ == '__main__':
    main()
