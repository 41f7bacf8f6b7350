#!/usr/bin/env python
"""Write a detector as ONNX, and compare the file with the model before it is kept.

    python tools/deployment/export_onnx.py CONFIG WEIGHTS OUT.onnx [--shape 800 1333] [--dynamic] [--attention grid]

Inputs are `images`, float32 (batch, 3, height, width), as the data preprocessor gives them (see the metadata
`preprocessing`), and with --padding-mask `padding_mask`, bool (batch, height, width), true at padded pixels. Outputs
are `boxes` (x1, y1, x2, y2 in pixels of the input), `scores`, best first, and `labels`.
"""

import argparse
import logging

from lite_detr_mmdet.export import ImageFormat, export_onnx, load_detector
from lite_detr_mmdet.export.command_line import add_export_arguments, check_export_arguments
from lite_detr_mmdet.utils import silence_upstream_warnings


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_export_arguments(
        parser,
        '.onnx',
        'grid',
        'grid: GridSample, for ONNX Runtime and OpenVINO; gather: without GridSample, for TensorRT; '
        'op: the compiled operators as nodes (grid)',
    )
    parser.add_argument('--opset', type=int, default=20, help='version of the standard operators (20)')
    parser.add_argument('--half', action='store_true', help='compute in float16; inputs and outputs stay float32')
    parser.add_argument('--padding-mask', action='store_true', help='add the mask of padded pixels as an input')
    parser.add_argument(
        '--normalize', action='store_true', help='normalise images in the model: they come as BGR from 0 to 255'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.disable(logging.INFO)
    silence_upstream_warnings()
    check_export_arguments(args)
    try:
        model, source = load_detector(args.config, args.weights)
        report = export_onnx(
            model,
            args.out,
            ImageFormat(*args.shape, args.batch, args.dynamic, args.padding_mask),
            opset=args.opset,
            attention=args.attention,
            half=args.half,
            normalize=args.normalize,
            check=args.verify,
            folder=args.images,
            metadata=source,
        )
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    print(report if report is not None else 'not compared with the model')
    print(f'written: {args.out}, {args.out.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    main()
