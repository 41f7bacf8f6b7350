#!/usr/bin/env python
"""Time encoders and whole detectors of several configs in one process, interleaved, and report ratios.

    python benchmarks/detectors.py CONFIG [CONFIG...] --shape 800 1333 --repeat 5 --out benchmarks/results/cpu
    python benchmarks/detectors.py CONFIG [CONFIG...] --device cuda --dtype bfloat16 --batch-size 16 --parts training

Configs are named as for every command: a file, a model of this package, or mmdet::dino/....

Weights are random: time does not depend on them. The first config is the baseline of the ratios. The encoder is timed
on the inputs that the detector gives it; the detector from a normalised image in memory to boxes; training from there
through loss, backward and AdamW. On a GPU the peak memory of a call, beyond weights and optimizer state, is reported.
"""

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, Optional

import torch
import torch.nn.functional as F
from environment import describe_environment, keep_pages

import lite_detr_mmdet  # noqa: F401  before mmdet

# isort: split
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.structures import InstanceData
from records import Record
from timing import measure_peak_bytes
from torch import Tensor, nn

from lite_detr_mmdet.utils import existing_config

RT_DETR = 'RT-DETR R50 (transformers)'
NUM_OBJECTS = 10  # in each image of a training step


def build_model(config: str, device: str) -> nn.Module:
    """Build the detector of a config with random weights and without downloads."""
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.to(device).eval()


def rt_detr_call(inputs: Tensor, autocast: Callable) -> Callable:
    """A call of RT-DETR with ResNet-50 of the transformers library, random weights and its defaults (300 queries).

    Its levels must halve without remainder, so the image is padded to multiples of 32.
    """
    from transformers import RTDetrConfig, RTDetrForObjectDetection

    inputs = F.pad(inputs, (0, -inputs.shape[3] % 32, 0, -inputs.shape[2] % 32))
    model = RTDetrForObjectDetection(RTDetrConfig(anchor_image_size=None)).to(inputs.device).eval()

    def run() -> None:
        with torch.inference_mode(), autocast():
            model(pixel_values=inputs)

    return run


def make_batch(batch_size: int, shape: List[int], device: str) -> dict:
    """Images without padding, their meta data and objects, as the data preprocessor would give them."""
    height, width = shape
    meta = dict(img_shape=(height, width), ori_shape=(height, width), batch_input_shape=(height, width))
    samples = []
    for _ in range(batch_size):
        corners = torch.rand(NUM_OBJECTS, 2, 2, device=device).sort(1)[0] * torch.tensor(
            [width, height], device=device
        )
        sample = DetDataSample(metainfo={**meta, 'scale_factor': (1.0, 1.0)})
        labels = torch.zeros(NUM_OBJECTS, dtype=torch.long, device=device)
        sample.gt_instances = InstanceData(bboxes=corners.flatten(1), labels=labels)
        samples.append(sample)
    return dict(inputs=torch.randn(batch_size, 3, height, width, device=device), data_samples=samples)


def run_mmcv_in_float32() -> None:
    """Let mmcv's CUDA operators, which know no bfloat16, convert to and from float32, as users of it have to."""
    from mmcv.ops import multi_scale_deform_attn
    from mmdet.models.losses import focal_loss

    function = multi_scale_deform_attn.MultiScaleDeformableAttnFunction
    sigmoid_focal_loss = focal_loss._sigmoid_focal_loss

    class InFloat32:
        @staticmethod
        def apply(value: Tensor, *args) -> Tensor:
            return function.apply(value.float(), *args).to(value.dtype)

    multi_scale_deform_attn.MultiScaleDeformableAttnFunction = InFloat32
    focal_loss._sigmoid_focal_loss = lambda pred, *args: sigmoid_focal_loss(pred.float(), *args)


def time_interleaved(functions: Dict[str, Callable], repeat: int, device: str) -> Dict[str, List[float]]:
    """Seconds of each function, one call after the other in every round, so that all meet the same noise."""
    seconds = {name: [] for name in functions}
    for index in range(repeat + 1):  # the first round warms up
        for name, function in functions.items():
            if device != 'cpu':
                torch.cuda.synchronize()
            start = time.perf_counter()
            function()
            if device != 'cpu':
                torch.cuda.synchronize()
            if index:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def encoder_call(model: nn.Module, batch: dict, autocast: Callable) -> Callable:
    """A call of the encoder alone, on the inputs that it gets from ``batch``."""
    model.eval()
    with torch.inference_mode(), autocast():
        features = model.extract_feat(batch['inputs'])
        encoder_inputs, _ = model.pre_transformer(features, batch['data_samples'])

    def run() -> None:
        with torch.inference_mode(), autocast():
            model.forward_encoder(**encoder_inputs)

    return run


def detector_call(model: nn.Module, batch: dict, autocast: Callable) -> Callable:
    """A call of the detector, to boxes."""
    model.eval()

    def run() -> None:
        with torch.inference_mode(), autocast():
            model(**batch, mode='predict')

    return run


def training_call(model: nn.Module, batch: dict, autocast: Callable) -> Callable:
    """One step of training: loss, backward, optimizer. The learning rate is zero: random images teach nothing."""
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, fused=True)

    def run() -> None:
        with autocast():
            loss, _ = model.parse_losses(model(**batch, mode='loss'))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def make_record(args: argparse.Namespace, rows: List[dict]) -> Record:
    """The record of a run with these arguments."""
    settings = {name: getattr(args, name) for name in ('compile', 'threads') if getattr(args, name)}
    return Record(
        benchmark='detectors',
        environment=describe_environment(args.device, *(['transformers'] if args.rt_detr else [])),
        results=rows,
        shape=tuple(args.shape),
        batch_size=args.batch_size,
        dtype=args.dtype,
        repeat=args.repeat,
        settings=settings,
    )


CALLS = dict(encoder=encoder_call, detector=detector_call, training=training_call)


def measure_peaks(calls: Dict[str, Callable], device: str) -> Dict[str, Optional[int]]:
    """Peak bytes of each call on a GPU. Calls for which memory is too small are taken out of ``calls``."""
    peaks = dict.fromkeys(calls)
    if device == 'cpu':
        return peaks
    for name, call in list(calls.items()):
        try:
            call()
            peaks[name] = measure_peak_bytes(call, device)
        except torch.cuda.OutOfMemoryError as error:
            print(f'{name} does not fit: {str(error).splitlines()[0]}', file=sys.stderr)
            del calls[name]
        torch.cuda.empty_cache()
    return peaks


def write_results(out: str, record: Record) -> None:
    """Write ``out``.json and ``out``.md."""
    record.write(f'{out}.json')
    lines = ['| config | part | median s | min s | speed-up over the first | peak GB |', '| --- ' * 6 + '|']
    for row in record.results:
        speedup = '-' if row['speedup'] is None else f'{row["speedup"]:.2f}x'
        peak = '' if row['peak_bytes'] is None else f'{row["peak_bytes"] / 1e9:.2f}'
        times = f'{row["median_s"]:.4f} | {row["min_s"]:.4f}'
        lines.append(f'| {row["config"]} | {row["part"]} | {times} | {speedup} | {peak} |')
    lines += ['', *record.lines()]
    Path(f'{out}.md').write_text('\n'.join(lines) + '\n')
    print('\n'.join(lines))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'configs', nargs='+', type=existing_config, help='config files or names of models; the first is the baseline'
    )
    parser.add_argument('--shape', nargs=2, type=int, default=[800, 1333], metavar=('H', 'W'))
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--repeat', type=int, default=5, help='timed rounds (default: %(default)s)')
    parser.add_argument('--parts', nargs='+', choices=tuple(CALLS), default=['encoder', 'detector'])
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--dtype', choices=['float32', 'float16', 'bfloat16'], default='float32', help='of autocast')
    parser.add_argument(
        '--compile', choices=['default', 'reduce-overhead'], help='torch.compile of the encoders, in this mode'
    )
    parser.add_argument('--threads', type=int, help='CPU threads (default: all)')
    parser.add_argument('--keep-pages', action='store_true', help='restart with a glibc that keeps the pages it frees')
    parser.add_argument('--rt-detr', action='store_true', help='time RT-DETR of the transformers library as well')
    parser.add_argument('--out', help='write OUT.json and OUT.md')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.keep_pages:
        keep_pages()
    if args.threads:
        torch.set_num_threads(args.threads)
    register_all_modules()
    device_type = args.device.partition(':')[0]
    if args.dtype == 'bfloat16' and device_type == 'cuda':
        run_mmcv_in_float32()
    dtype = None if args.dtype == 'float32' else getattr(torch, args.dtype)
    autocast = partial(torch.autocast, device_type, dtype, enabled=dtype is not None)
    batch = make_batch(args.batch_size, args.shape, args.device)
    models = {Path(config).stem: build_model(config, args.device) for config in args.configs}
    if args.compile:
        for model in models.values():
            model.encoder.compile(mode=args.compile)
    rows = []
    for part in args.parts:
        calls = {name: CALLS[part](model, batch, autocast) for name, model in models.items()}
        if part == 'detector' and args.rt_detr:
            calls[RT_DETR] = rt_detr_call(batch['inputs'], autocast)
        peaks = measure_peaks(calls, args.device)
        seconds = time_interleaved(calls, args.repeat, args.device)
        # Of the first config, none if its memory does not suffice.
        baseline = statistics.median(next(iter(seconds.values()))) if next(iter(peaks)) in calls else None
        for name, values in seconds.items():
            median = statistics.median(values)
            rows.append(
                dict(
                    config=name,
                    part=part,
                    median_s=median,
                    min_s=min(values),
                    speedup=baseline and baseline / median,
                    peak_bytes=peaks[name],
                    seconds=values,
                )
            )
    write_results(args.out or 'work_dirs/benchmark_detectors', make_record(args, rows))


if __name__ == '__main__':
    main()
