#!/usr/bin/env python
"""Time encoders and whole detectors of several configs in one process, interleaved, and report ratios.

    python benchmarks/detectors.py CONFIG [CONFIG...] --shape 800 1333 --repeat 5 --out benchmarks/results/cpu

Configs are paths or names in a package, such as mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py.

Weights are random: time does not depend on them. The first config is the baseline of the ratios. The encoder is timed
on the inputs that the detector gives it; the detector from a normalised image in memory to boxes.
"""

import argparse
import json
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Callable, Dict, List

import torch
import torch.nn.functional as F
from environment import describe_environment, keep_pages
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import Tensor, nn

import lite_detr_mmdet  # noqa: F401  registers the models

RT_DETR = 'RT-DETR R50 (transformers)'


def build_model(config: str, device: str) -> nn.Module:
    """Build the detector of a config with random weights and without downloads."""
    cfg = Config.fromstring(f'_base_ = {config!r}', '.py') if '::' in config else Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.to(device).eval()


def rt_detr_call(inputs: Tensor) -> Callable:
    """A call of RT-DETR with ResNet-50 of the transformers library, random weights and its defaults (300 queries).

    Its levels must halve without remainder, so the image is padded to multiples of 32.
    """
    from transformers import RTDetrConfig, RTDetrForObjectDetection

    inputs = F.pad(inputs, (0, -inputs.shape[3] % 32, 0, -inputs.shape[2] % 32))
    model = RTDetrForObjectDetection(RTDetrConfig(anchor_image_size=None)).to(inputs.device).eval()
    return lambda: model(pixel_values=inputs)


def make_batch(batch_size: int, shape: List[int], device: str) -> dict:
    """Images without padding and their meta data, as the data preprocessor would give them."""
    height, width = shape
    meta = dict(img_shape=(height, width), ori_shape=(height, width), batch_input_shape=(height, width))
    samples = [DetDataSample(metainfo={**meta, 'scale_factor': (1.0, 1.0)}) for _ in range(batch_size)]
    return dict(inputs=torch.randn(batch_size, 3, height, width, device=device), data_samples=samples)


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


def encoder_call(model: nn.Module, batch: dict) -> Callable:
    """A call of the encoder alone, on the inputs that it gets from ``batch``."""
    features = model.extract_feat(batch['inputs'])
    encoder_inputs, _ = model.pre_transformer(features, batch['data_samples'])
    return lambda: model.forward_encoder(**encoder_inputs)


def write_results(out: str, environment: dict, rows: List[dict]) -> None:
    """Write ``out``.json and ``out``.md."""
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(f'{out}.json').write_text(json.dumps(dict(environment=environment, rows=rows), indent=2) + '\n')
    lines = ['| config | part | median s | min s | speed-up over the first |', '| --- | --- | --- | --- | --- |']
    lines += [
        f'| {row["config"]} | {row["part"]} | {row["median_s"]:.3f} | {row["min_s"]:.3f} | {row["speedup"]:.2f}x |'
        for row in rows
    ]
    lines += ['', *(f'- {key}: {value}' for key, value in environment.items())]
    Path(f'{out}.md').write_text('\n'.join(lines) + '\n')
    print('\n'.join(lines))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', help='config files; the first is the baseline')
    parser.add_argument('--shape', nargs=2, type=int, default=[800, 1333], metavar=('H', 'W'))
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--repeat', type=int, default=5, help='timed rounds (default: %(default)s)')
    parser.add_argument('--parts', nargs='+', choices=['encoder', 'detector'], default=['encoder', 'detector'])
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--threads', type=int, help='CPU threads (default: all)')
    parser.add_argument('--keep-pages', action='store_true', help='restart with a glibc that keeps the pages it frees')
    parser.add_argument('--rt-detr', action='store_true', help='time RT-DETR of the transformers library as well')
    parser.add_argument('--out', help='write OUT.json and OUT.md')
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    args = parse_args()
    if args.keep_pages:
        keep_pages()
    if args.threads:
        torch.set_num_threads(args.threads)
    register_all_modules()
    batch = make_batch(args.batch_size, args.shape, args.device)
    models = {Path(config.rpartition(':')[2]).stem: build_model(config, args.device) for config in args.configs}
    rows = []
    for part in args.parts:
        if part == 'encoder':
            calls = {name: encoder_call(model, batch) for name, model in models.items()}
        else:
            calls = {name: lambda model=model: model(**batch, mode='predict') for name, model in models.items()}
            if args.rt_detr:
                calls[RT_DETR] = rt_detr_call(batch['inputs'])
        seconds = time_interleaved(calls, args.repeat, args.device)
        baseline = statistics.median(next(iter(seconds.values())))
        for name, values in seconds.items():
            median = statistics.median(values)
            rows.append(
                dict(
                    config=name,
                    part=part,
                    median_s=median,
                    min_s=min(values),
                    speedup=baseline / median,
                    seconds=values,
                )
            )
    environment = describe_environment(args.device)
    if args.rt_detr:
        environment['transformers'] = version('transformers')
    environment.update(input=f'{args.batch_size}x3x{args.shape[0]}x{args.shape[1]}, fp32', repeat=args.repeat)
    write_results(args.out or 'work_dirs/benchmark_detectors', environment, rows)


if __name__ == '__main__':
    main()
