#!/usr/bin/env python
"""Time detectors in torch and exported in ONNX Runtime and OpenVINO, interleaved in one process.

    python benchmarks/runtimes.py FOLDER CONFIG [CONFIG...] --rt-detr --export-only
    python benchmarks/runtimes.py FOLDER CONFIG [CONFIG...] --rt-detr --threads 1 --out benchmarks/results/cpu_runtimes

The first call exports into FOLDER: each detector with standard operators (grid) and with the compiled ones as nodes
(op), and RT-DETR R50 of the transformers library with torch's exporter, as it comes. Files that are there are used
again. A form whose library is not built is left out. Weights are random: times do not depend on them. Ratios are those
to the first config in torch with the fused operator, the median over rounds.
"""

import argparse
import logging
import statistics
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lite_detr_mmdet.analysis.environment import describe_environment
from lite_detr_mmdet.analysis.records import Record
from lite_detr_mmdet.apis import get_model
from lite_detr_mmdet.export import ExportableDetector, ImageFormat
from lite_detr_mmdet.export.onnx_model import quiet_exporter, to_onnx, without_inspected
from lite_detr_mmdet.export.runners import OnnxRuntimeRunner, OpenVinoRunner, find_runtime_library
from lite_detr_mmdet.export.verification import Batch, predict
from lite_detr_mmdet.output_files import output_pair, write_whole
from lite_detr_mmdet.timing import time_interleaved

RUNNERS = {'onnxruntime': OnnxRuntimeRunner, 'openvino': OpenVinoRunner}
RT_DETR = 'RT-DETR R50 (transformers)'


def name_of(config: str) -> str:
    """A config as it stands in tables and names of files."""
    return Path(config.rpartition('::')[2]).stem


def export_detector(config: str, form: str, path: Path, shape: tuple) -> None:
    model = get_model(config, device='cpu')
    exported = without_inspected(to_onnx(ExportableDetector(model, form), ImageFormat(*shape)))
    write_whole(path, lambda file: file.write(exported.SerializeToString()))


class RTDetr(nn.Module):
    """RT-DETR of the transformers library: the image, padded to multiples of 32, to class logits and boxes."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import RTDetrConfig, RTDetrForObjectDetection

        torch.manual_seed(0)
        self.model = RTDetrForObjectDetection(RTDetrConfig(anchor_image_size=None)).eval()

    def forward(self, images: Tensor) -> tuple:
        height, width = images.shape[-2:]
        outputs = self.model(pixel_values=F.pad(images, (0, -width % 32, 0, -height % 32)))
        return outputs.logits, outputs.pred_boxes


def export_rt_detr(path: Path, shape: tuple) -> None:
    images = torch.randn(1, 3, *shape)
    with torch.no_grad(), quiet_exporter():
        program = torch.onnx.export(
            RTDetr().requires_grad_(False), (images,), dynamo=True, opset_version=20, input_names=['images']
        )
    write_whole(path, lambda file: file.write(program.model_proto.SerializeToString()))


def files_of(args: argparse.Namespace) -> Dict[tuple, Path]:
    """Name, form -> file, exported where it is missing."""
    args.folder.mkdir(parents=True, exist_ok=True)
    size = 'x'.join(map(str, args.shape))
    files = {}
    for config in args.configs:
        for form in args.forms:
            path = files[name_of(config), form] = args.folder / f'{name_of(config)}_{form}_{size}.onnx'
            if not path.is_file():
                export_detector(config, form, path, tuple(args.shape))
    if args.rt_detr:
        path = files[RT_DETR, 'grid'] = args.folder / f'rt-detr_r50_{size}.onnx'
        if not path.is_file():
            export_rt_detr(path, tuple(args.shape))
    return files


def calls_of(args: argparse.Namespace, files: Dict[tuple, Path]) -> Dict[tuple, Callable]:
    """Name, runtime, form -> call. RT-DETR in torch runs as installed."""
    images = torch.randn(1, 3, *args.shape)
    batch = Batch(images, [tuple(args.shape)])
    calls: Dict[tuple, Callable] = {}
    for config in args.configs[: len(args.configs) if args.all_in_torch else 1]:
        calls[name_of(config), 'torch', 'fused'] = partial(predict, get_model(config, device='cpu'), batch, images)
    if args.rt_detr:
        calls[RT_DETR, 'torch', 'as installed'] = partial(torch.inference_mode()(RTDetr()), images)
    for (name, form), path in files.items():
        for runtime, runner in RUNNERS.items():
            if runtime in args.runtimes and (form != 'op' or find_runtime_library(runtime) is not None):
                run = runner(path, args.threads, operators=form == 'op')
                calls[name, runtime, form] = partial(run, {'images': images.numpy()})
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='folder for exported files')
    parser.add_argument('configs', nargs='+', help='a model of the zoo, a config file, or PACKAGE::CONFIG')
    parser.add_argument('--rt-detr', action='store_true', help='export and time RT-DETR as well (needs transformers)')
    parser.add_argument('--shape', type=int, nargs=2, default=(800, 1333), metavar=('H', 'W'))
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--repeat', type=int, default=5, help='timed rounds, after one that warms up (5)')
    parser.add_argument('--forms', nargs='+', choices=('grid', 'op'), default=('grid', 'op'))
    parser.add_argument('--runtimes', nargs='+', choices=tuple(RUNNERS), default=tuple(RUNNERS))
    parser.add_argument('--all-in-torch', action='store_true', help='time all configs in torch, not the first alone')
    parser.add_argument('--export-only', action='store_true', help='export what is missing and stop')
    parser.add_argument('--out', type=output_pair, help='write OUT.json and OUT.md')
    args = parser.parse_args()
    logging.disable(logging.INFO)
    torch.manual_seed(0)
    files = files_of(args)
    if args.export_only:
        return
    torch.set_num_threads(args.threads)
    seconds = time_interleaved(calls_of(args, files), args.repeat, 'cpu')
    baseline = next(iter(seconds.values()))
    rows = [
        dict(
            model=model,
            runtime=runtime,
            form=form,
            median_ms=round(1e3 * statistics.median(times), 1),
            ratio=round(statistics.median(a / b for a, b in zip(times, baseline)), 3),
        )
        for (model, runtime, form), times in seconds.items()
    ]
    record = Record(
        benchmark='runtimes',
        environment=describe_environment(
            'cpu', 'onnxruntime', 'openvino', *(['transformers'] if args.rt_detr else [])
        ),
        results=rows,
        shape=tuple(args.shape),
        batch_size=1,
        dtype='float32',
        repeat=args.repeat,
    )
    text = '\n'.join([*table(rows), '', *record.lines()])
    print(text)
    if args.out:
        record.write_pair(args.out, text)


def table(rows: List[dict]) -> List[str]:
    """Lines of Markdown."""
    lines = ['| model | runtime | form | median ms | ratio |', '| --- | --- | --- | --- | --- |']
    return lines + ['| ' + ' | '.join(str(value) for value in row.values()) + ' |' for row in rows]


if __name__ == '__main__':
    main()
