#!/usr/bin/env python
"""AP, latency and size of an exported model: COCO's metric on images with annotations.

    python tools/deployment/evaluate_exported.py MODEL.onnx ANNOTATIONS.json IMAGES [--runtime openvino]

MODEL may be ONNX or OpenVINO's .xml. Categories are found by their names; those that the model lacks do not count.
"""

import argparse
import contextlib
import io
import json
import logging
import time
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from lite_detr_mmdet.evaluation.coco_stats import coco_stats
from lite_detr_mmdet.export.exported import coco_results, prepare, read_metadata, to_image_pixels
from lite_detr_mmdet.export.images import read_image
from lite_detr_mmdet.export.onnx_model import require
from lite_detr_mmdet.export.runners import OnnxRuntimeRunner, OpenVinoRunner
from lite_detr_mmdet.output_files import output_file, prepare_output, write_text

RUNNERS = {'onnxruntime': OnnxRuntimeRunner, 'openvino': OpenVinoRunner}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=Path, help='exported model of fixed size')
    parser.add_argument('annotations', type=Path, help='annotation file of COCO')
    parser.add_argument('images', type=Path, help='folder of its images')
    parser.add_argument('--runtime', choices=tuple(RUNNERS), default='openvino')
    parser.add_argument('--threads', type=int, default=0, help='threads (0: one for each core)')
    parser.add_argument('--operators', action='store_true', help='the model has the compiled operators as nodes')
    parser.add_argument('--limit', type=int, help='images to evaluate, the first ones (all)')
    parser.add_argument('--out', type=output_file, help='file for the results, JSON')
    return parser.parse_args()


def find_categories(coco: COCO, classes: list, annotations: Path) -> list:
    """Ids of the categories of the model's classes.

    Raises:
        ValueError: If the annotations have no category of that name.
    """
    ids = {category['name']: category['id'] for category in coco.dataset['categories']}
    unknown = [name for name in classes if name not in ids]
    if unknown:
        raise ValueError(
            f"{annotations} must have the model's {len(classes)} classes as categories, found {len(ids)} categories, "
            f'none named {unknown[0]!r}'
        )
    return [ids[name] for name in classes]


def size_of(path: Path) -> int:
    """Bytes of a model with its weights."""
    weights = path.with_suffix('.bin')
    return path.stat().st_size + (weights.stat().st_size if path.suffix == '.xml' and weights.is_file() else 0)


def evaluate(args: argparse.Namespace) -> dict:
    metadata = read_metadata(args.model)
    coco = COCO(str(args.annotations))
    category_ids = find_categories(coco, metadata['classes'], args.annotations)
    runner = RUNNERS[args.runtime](args.model, args.threads, operators=args.operators)
    if not isinstance(runner.input_size[0], int):
        raise ValueError(f'the model must take images of a fixed size, got {runner.input_size}')
    image_ids = sorted(coco.getImgIds())[: args.limit]
    results, seconds = [], []
    for image_id in image_ids:
        image = read_image(args.images / coco.loadImgs(image_id)[0]['file_name'])
        inputs = {'images': prepare(image, runner.input_size, metadata['preprocessing'])}
        start = time.perf_counter()
        outputs = runner(inputs)
        seconds.append(time.perf_counter() - start)
        results += coco_results(image_id, to_image_pixels(outputs, runner.input_size, image), category_ids)
    stats = coco_stats(coco, results, image_ids, category_ids)
    return {
        'model': args.model.name,
        'runtime': args.runtime,
        'images': len(image_ids),
        'AP': round(100 * stats[0], 2),
        'AP50': round(100 * stats[1], 2),
        'median_ms': round(1e3 * float(np.median(seconds)), 1),
        'megabytes': round(size_of(args.model) / 1e6, 1),
    }


def main() -> None:
    args = parse_args()
    logging.disable(logging.INFO)
    for path in (args.model, args.annotations):
        if not path.is_file():
            raise SystemExit(f'error: must be a file that exists, got {str(path)!r}')
    try:
        require(args.runtime, 'onnx')
        with contextlib.redirect_stdout(io.StringIO()):
            found = evaluate(args)
    except (FileNotFoundError, ImportError, RuntimeError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    print(json.dumps(found))
    if args.out:
        write_text(json.dumps(found, indent=1) + '\n', prepare_output(args.out))


if __name__ == '__main__':
    main()
