#!/usr/bin/env python
"""Quantise an exported model to INT8 for OpenVINO.

    python tools/deployment/quantize_openvino.py MODEL.onnx TRAINING_IMAGES OUT.xml

Convolutions and the feed-forward layers of the encoder get 8 bits, calibrated on training images; depthwise
convolutions, attention, decoder and heads stay in float. tools/deployment/evaluate_exported.py measures the AP of both
models.
"""

import argparse
import logging
import random
from pathlib import Path

from lite_detr_mmdet.datasets.checks import read_names
from lite_detr_mmdet.export.exported import prepare, read_metadata
from lite_detr_mmdet.export.images import find_images, read_image
from lite_detr_mmdet.export.onnx_model import require
from lite_detr_mmdet.export.quantization import quantize, save
from lite_detr_mmdet.export.runners import find_runtime_library
from lite_detr_mmdet.output_files import check_output


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', metavar='MODEL.onnx', type=Path, help='exported model of fixed size')
    parser.add_argument('images', metavar='TRAINING_IMAGES', type=Path, help='folder of images to calibrate with')
    parser.add_argument('out', metavar='OUT.xml', type=Path, help='file to write; weights go beside it (.bin)')
    parser.add_argument(
        '--annotations',
        type=Path,
        metavar='TRAIN.json',
        help='take only the images of this COCO file (all of the folder)',
    )
    parser.add_argument('--count', type=int, default=200, help='images to calibrate with, drawn at random (200)')
    return parser.parse_args()


def images_of(annotations: Path, paths: list) -> list:
    """Those of the images that a COCO file lists.

    Raises:
        FileNotFoundError: If the file does not exist, or none of its images is there.
        ValueError: If it is not in COCO's format.
    """
    if not annotations.is_file():
        raise FileNotFoundError(f'--annotations must be a file that exists, got {str(annotations)!r}')
    names = {Path(name).name for name in read_names(annotations, 'images', 'file_name')}
    found = [path for path in paths if path.name in names]
    if not found:
        raise FileNotFoundError(f'--annotations must list images of the folder, found none of {len(names)}')
    return found


def main() -> None:
    args = parse_args()
    if args.out.suffix != '.xml':
        raise SystemExit(f'error: must be an .xml file, got {str(args.out)!r}')
    if args.count < 1:
        raise SystemExit(f'error: --count must be positive, got {args.count}')
    if not args.model.is_file():
        raise SystemExit(f'error: must be a model file that exists, got {str(args.model)!r}')
    logging.disable(logging.INFO)
    weights = args.out.with_suffix('.bin')
    try:
        for path in (args.out, weights):
            check_output(path)
        require('nncf', 'openvino')
        import openvino

        metadata = read_metadata(args.model)
        paths = find_images(args.images)
        if args.annotations:
            paths = images_of(args.annotations, paths)
        paths = random.Random(0).sample(paths, min(args.count, len(paths)))
        core = openvino.Core()
        library = find_runtime_library('openvino')
        if library is not None:
            core.add_extension(str(library))
        model = core.read_model(str(args.model))
        shape = model.input('images').partial_shape
        if shape.is_dynamic or shape[0].get_length() != 1:
            raise ValueError(f'the model must take one image of a fixed size, got {shape}')
        size = (shape[2].get_length(), shape[3].get_length())
        images = [prepare(read_image(path), size, metadata['preprocessing']) for path in paths]
        save(quantize(model, images), args.out)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    size_mb = (args.out.stat().st_size + weights.stat().st_size) / 1e6
    print(f'written: {args.out}, {size_mb:.1f} MB ({args.model.stat().st_size / 1e6:.1f} MB before)')
    print(f'calibrated on {len(images)} images of {args.images}')


if __name__ == '__main__':
    main()
