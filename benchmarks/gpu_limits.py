#!/usr/bin/env python
"""Measure what bounds deformable attention on a GPU: copy, gather and atomic rates. Needs a GPU and nvcc.

    python benchmarks/gpu_limits.py --out benchmarks/results/gpu/limits

Rates are bytes a second, medians over the repeats. `copy`: bytes read and written by a copy of 2 GiB. `l1_gather` and
`l2_gather`: rows of 128 or 64 bytes (a head of a token in 32 or 16 bits, 32 channels), one of the 8 heads, at random
places of 16 KiB a block, or of 32 MiB of all heads. `atomic`: rows of 128 bytes in float32 added at random places of
32 MiB.
"""

import argparse
import ctypes
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Callable, Dict

import torch

from lite_detr_mmdet.analysis.environment import describe_environment
from lite_detr_mmdet.analysis.records import Record
from lite_detr_mmdet.output_files import output_pair
from lite_detr_mmdet.timing import measure_seconds

HERE = Path(__file__).resolve().parent
THREADS = 128  # of a block, as in gpu_limits.cu
SAMPLES = 256  # rows that a group of threads visits
BLOCKS = 8192
HEADS = 8
TABLE_BYTES, WINDOW_BYTES, COPY_BYTES = 32 << 20, 16 << 10, 2 << 30


def build_library(folder: Path) -> ctypes.CDLL:
    """Compile gpu_limits.cu for the current GPU.

    Raises:
        RuntimeError: If there is no nvcc, or it fails.
    """
    nvcc = shutil.which('nvcc')
    if nvcc is None:
        raise RuntimeError('gpu_limits.py needs nvcc on the PATH')
    folder.mkdir(parents=True, exist_ok=True)
    major, minor = torch.cuda.get_device_capability()
    library = folder / f'gpu_limits_sm{major}{minor}.so'
    command = [nvcc, '-O3', '-std=c++17', f'-arch=sm_{major}{minor}', '-shared', '-Xcompiler', '-fPIC']
    result = subprocess.run([*command, HERE / 'gpu_limits.cu', '-o', library], capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f'nvcc failed:\n{result.stderr}')
    return ctypes.CDLL(str(library))


def make_kernels(library: ctypes.CDLL) -> Dict[str, tuple]:
    """Names with a call and the bytes that it moves."""
    table = torch.randn(TABLE_BYTES // 4, device='cuda')
    sums = torch.zeros_like(table)
    out = torch.empty(16, device='cuda')
    source = torch.randint(0, 256, (COPY_BYTES,), dtype=torch.uint8, device='cuda')
    target = torch.empty_like(source)

    def call(function: str, *arguments) -> Callable[[], None]:
        def run() -> None:
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            words = [ctypes.c_void_p(word.data_ptr()) if torch.is_tensor(word) else word for word in arguments]
            error = getattr(library, function)(*words, stream)
            if error:
                raise RuntimeError(f'{function} failed with CUDA error {error}')

        return run

    kernels = {'copy': (lambda: target.copy_(source), 2 * COPY_BYTES)}
    for row_bytes in (128, 64):
        lanes = row_bytes // 16
        moved = BLOCKS * THREADS // lanes * SAMPLES * row_bytes
        # Of the rows of HEADS heads, which follow each other, a block reads those of one.
        rows, window = TABLE_BYTES // (HEADS * row_bytes), WINDOW_BYTES // row_bytes
        for name, size in (('l1', window), ('l2', rows)):
            arguments = (table, out, size, rows, lanes, HEADS * lanes, SAMPLES, BLOCKS)
            kernels[f'{name}_gather_{row_bytes}'] = (call('limits_gather', *arguments), moved)
    lanes = 8
    moved = BLOCKS * THREADS // lanes * SAMPLES * 128
    vectors = {'atomic_float': 0, **({'atomic_float4': 1} if torch.cuda.get_device_capability() >= (9, 0) else {})}
    for name, vector in vectors.items():
        arguments = (sums, TABLE_BYTES // 128, lanes, SAMPLES, BLOCKS, vector)
        kernels[name] = (call('limits_atomic', *arguments), moved)
    return kernels


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=20)
    parser.add_argument('--build', type=Path, default=HERE.parent / 'build' / 'gpu', help='folder of the library')
    parser.add_argument('--out', type=output_pair, help='write OUT.json and OUT.md')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not torch.cuda.is_available():
        raise SystemExit('gpu_limits.py needs a GPU: torch finds none')
    rates = {}
    for name, (run, moved) in make_kernels(build_library(args.build)).items():
        for _ in range(3):
            run()
        rates[name] = moved / statistics.median(measure_seconds(run, 'cuda') for _ in range(args.repeats))
    settings = dict(l2_bytes=torch.cuda.get_device_properties(0).L2_cache_size)
    record = Record('gpu_limits', describe_environment('cuda'), rates, repeat=args.repeats, settings=settings)
    lines = ['# Rates of a GPU', '', *record.lines()]
    lines += ['', '| what | TB/s |', '| --- | --- |']
    lines += [f'| {name} | {rate / 1e12:.2f} |' for name, rate in rates.items()]
    page = '\n'.join(lines)
    print(page)
    if args.out is not None:
        record.write_pair(args.out, page)


if __name__ == '__main__':
    main()
