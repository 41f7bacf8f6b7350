#!/usr/bin/env python
"""Time a detector in torch and exported in ONNX Runtime and OpenVINO, interleaved in one process.

    python benchmarks/runtimes.py CONFIG FOLDER [--weights FILE] [--shape 800 1333] [--export-only] [--threads 1]

The first call exports into FOLDER, with standard operators and with the compiled ones as nodes; later calls find the
files there. Without weights they are random: times do not depend on them.
"""

import argparse
import json
import logging
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from lite_detr_mmdet.apis import get_model
from lite_detr_mmdet.export import ExportableDetector, ImageFormat, load_detector
from lite_detr_mmdet.export.onnx_model import to_onnx, without_inspected
from lite_detr_mmdet.export.runners import OnnxRuntimeRunner, OpenVinoRunner, find_runtime_library
from lite_detr_mmdet.export.verification import Batch, predict


def export(model: torch.nn.Module, folder: Path, shape: tuple) -> dict:
    """Files of both forms."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {form: folder / f'{form}_{shape[0]}x{shape[1]}.onnx' for form in ('grid', 'op')}
    for form, path in files.items():
        if not path.is_file():
            exported = without_inspected(to_onnx(ExportableDetector(model, form), ImageFormat(*shape)))
            partial = path.with_suffix('.partial')
            partial.write_bytes(exported.SerializeToString())
            partial.rename(path)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('folder', type=Path)
    parser.add_argument('--weights')
    parser.add_argument('--shape', type=int, nargs=2, default=(800, 1333))
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--export-only', action='store_true')
    parser.add_argument('--record', type=Path, help='file for the results, JSON')
    args = parser.parse_args()
    logging.disable(logging.INFO)
    torch.manual_seed(0)
    if args.weights:
        model = load_detector(args.config, args.weights)[0]
    else:
        model = get_model(args.config, device='cpu')
    files = export(model, args.folder, tuple(args.shape))
    if args.export_only:
        return
    torch.set_num_threads(args.threads)
    batch = Batch(torch.randn(1, 3, *args.shape), [tuple(args.shape)])
    inputs = {'images': batch.images.numpy()}
    calls = {'torch, eager, fused operator': lambda: predict(model, batch, batch.images)}
    for runner, runtime in ((OnnxRuntimeRunner, 'onnxruntime'), (OpenVinoRunner, 'openvino')):
        for form, path in files.items():
            if form == 'op' and find_runtime_library(runtime) is None:
                continue
            run = runner(path, args.threads, operators=form == 'op')
            calls[f'{runner.name}, {form}'] = lambda run=run: run(inputs)
    seconds = {name: [] for name in calls}
    for index in range(args.rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if index:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    first = seconds['torch, eager, fused operator']
    rows = [
        dict(
            what=name,
            milliseconds=round(1e3 * statistics.median(times), 1),
            ratio=round(float(np.median(np.divide(times, first))), 3),
        )
        for name, times in seconds.items()
    ]
    print(f'{args.config}, {args.shape[0]}x{args.shape[1]}, batch 1, float32, {args.threads} threads')
    for row in rows:
        print(f'{row["what"]:32} {row["milliseconds"]:9.1f} ms  {row["ratio"]:.3f}')
    if args.record:
        record = dict(
            config=args.config,
            shape=list(args.shape),
            threads=args.threads,
            rounds=args.rounds,
            processor=platform.processor() or platform.machine(),
            capability=torch.ops.lite_detr.cpu_capability(),
            torch=torch.__version__,
            rows=rows,
        )
        args.record.write_text(json.dumps(record, indent=2) + '\n')


if __name__ == '__main__':
    main()
