#!/usr/bin/env python
"""Write a detector as a package of torch.export or AOTInductor, and compare it with the model before it is kept.

    python tools/deployment/export_torch.py CONFIG WEIGHTS OUT.pt2 [--shape 800 1333] [--dynamic] [--compile]

A package needs torch and, with the compiled operators, lite_detr_mmdet.ops, but not MMDetection. Inputs and outputs
are those of export_onnx.py.
"""

import argparse
import logging
from pathlib import Path

from lite_detr_mmdet.export import ATTENTION_FORMS, ImageFormat, load_detector
from lite_detr_mmdet.export.torch_package import export_torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='a model of the zoo, a config file, or PACKAGE::CONFIG')
    parser.add_argument('weights', metavar='WEIGHTS', help='checkpoint: a file or a URL')
    parser.add_argument('out', metavar='OUT.pt2', type=Path, help='file to write')
    parser.add_argument(
        '--shape', type=int, nargs=2, metavar=('H', 'W'), default=(800, 1333), help='size of the images (800 1333)'
    )
    parser.add_argument('--dynamic', action='store_true', help='let batch, height and width change from call to call')
    parser.add_argument('--batch', type=int, default=1, metavar='N', help='images at a time (1)')
    parser.add_argument('--compile', action='store_true', help='compile by AOTInductor (needs a C++ compiler)')
    parser.add_argument('--attention', choices=ATTENTION_FORMS, default='op', help='see export_onnx.py (op)')
    parser.add_argument(
        '--verify', action=argparse.BooleanOptionalAction, default=True, help='compare with the model first (yes)'
    )
    parser.add_argument('--images', type=Path, metavar='FOLDER', help='images to compare with (generated ones)')
    args = parser.parse_args()
    if min(*args.shape, args.batch) < 1:
        raise SystemExit(f'error: --shape and --batch must be positive, got {args.shape} and {args.batch}')
    logging.disable(logging.INFO)
    try:
        report = export_torch(
            load_detector(args.config, args.weights)[0],
            args.out,
            ImageFormat(*args.shape, args.batch, args.dynamic),
            compiled=args.compile,
            attention=args.attention,
            check=args.verify,
            folder=args.images,
        )
    except (ConnectionError, FileNotFoundError, RuntimeError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    print(report if report is not None else 'not compared with the model')
    print(f'written: {args.out}, {args.out.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    main()
