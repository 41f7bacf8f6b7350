#!/usr/bin/env python
"""AP of an exported model before and after INT8, with the shipped commands.

    python benchmarks/int8_accuracy.py MODEL.onnx --train TRAIN.json --test TEST.json [VAL.json] --images FOLDER

Calibrates on training images, measures AP by COCO in OpenVINO on each test file, and prints it with the sizes.
Times are not recorded.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from lite_detr_mmdet.analysis.environment import describe_environment
from lite_detr_mmdet.analysis.records import Record
from lite_detr_mmdet.output_files import output_file

TOOLS = Path(__file__).resolve().parent.parent / 'tools' / 'deployment'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=Path, help='written by export_onnx.py, for images of a fixed size')
    parser.add_argument('--train', type=Path, required=True, help='annotation file of the images to calibrate with')
    parser.add_argument('--test', type=Path, nargs='+', required=True, help='annotation files to evaluate on')
    parser.add_argument('--images', type=Path, required=True, help='folder of all images')
    parser.add_argument('--count', type=int, default=200, help='images to calibrate with (default: %(default)s)')
    parser.add_argument('--limit', type=int, help='images of each test file, the first ones (default: all)')
    parser.add_argument('--out', type=output_file, help='file to write, .json')
    return parser.parse_args()


def run(name: str, *arguments: object) -> str:
    """What a tool prints; its errors are shown."""
    result = subprocess.run(
        list(map(str, (sys.executable, TOOLS / name, *arguments))), stdout=subprocess.PIPE, text=True
    )
    if result.returncode:
        raise SystemExit(f'error: {name} failed, see above')
    return result.stdout


def main() -> None:
    args = parse_args()
    limit = [] if args.limit is None else ['--limit', args.limit]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        quantized = Path(folder) / 'int8.xml'
        calibration = ('--annotations', args.train, '--count', args.count)
        run('quantize_openvino.py', args.model, args.images, quantized, *calibration)
        for annotations in args.test:
            for precision, model in (('float32', args.model), ('int8', quantized)):
                found = json.loads(run('evaluate_exported.py', model, annotations, args.images, *limit))
                kept = {name: found[name] for name in ('images', 'AP', 'AP50', 'megabytes')}
                results.append(dict(annotations=annotations.name, precision=precision, **kept))
                print(json.dumps(results[-1]), flush=True)
    if args.out:
        environment = describe_environment('cpu', 'openvino', 'nncf', 'onnx')
        Record('int8_accuracy', environment, results, settings=dict(count=args.count)).write(args.out)


if __name__ == '__main__':
    main()
