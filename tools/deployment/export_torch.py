#!/usr/bin/env python
"""Write a detector as a package of torch.export or AOTInductor, and compare it with the model before it is kept.

    python tools/deployment/export_torch.py CONFIG WEIGHTS OUT.pt2 [--shape 800 1333] [--dynamic] [--compile]

A package needs torch and, with the compiled operators, lite_detr_mmdet.ops, but not MMDetection. Inputs and outputs
are those of export_onnx.py.
"""

import argparse
import logging

from lite_detr_mmdet.export import ImageFormat, load_detector
from lite_detr_mmdet.export.command_line import add_export_arguments, check_export_arguments
from lite_detr_mmdet.export.torch_package import export_torch
from lite_detr_mmdet.utils import silence_upstream_warnings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_export_arguments(parser, '.pt2', 'op', 'see export_onnx.py (op)')
    parser.add_argument('--compile', action='store_true', help='compile by AOTInductor (needs a C++ compiler)')
    args = parser.parse_args()
    check_export_arguments(args)
    logging.disable(logging.INFO)
    silence_upstream_warnings()
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
    except (OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    print(report if report is not None else 'not compared with the model')
    print(f'written: {args.out}, {args.out.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    main()
