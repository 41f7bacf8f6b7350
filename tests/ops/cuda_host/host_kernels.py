"""Builds the CUDA kernels for the host and runs them in the emulator of this folder."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional

import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[2] / 'csrc' / 'cuda'
FLAGS = ['-std=c++17', '-O1', '-g1', '-fsanitize=address,undefined', '-fno-sanitize-recover=undefined']
FLAGS += ['-Wall', '-Wextra', '-Werror', '-Wno-unknown-pragmas']
# As in deform_attn_cuda.h
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
LEVELS_IN = ['host', 'device int64', 'device int32']
ORDERS = ['forward', 'backward', 'random']


def find_compiler() -> Optional[str]:
    return shutil.which('g++') or shutil.which('clang++')


def compile_all(folder: Path, commands: List[List[str]]) -> None:
    """Run the compiler once for each command, two at a time."""
    running: List[subprocess.Popen] = []
    for command in commands:
        running.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)
        )
        if len(running) == 2:
            wait_for(running.pop(0))
    for process in running:
        wait_for(process)


def wait_for(process: subprocess.Popen) -> None:
    log = process.communicate()[0]
    if process.returncode != 0:
        raise RuntimeError(f'{" ".join(process.args)} failed:\n{log}')


def build(folder: Path) -> Dict[str, Path]:
    """Compile the kernels with and without the vector atomics of sm_90.

    Args:
        folder (Path): Where to build.

    Returns:
        Dict[str, Path]: 'sm_80' and 'sm_90': programs that run cases; 'headers': the test of the index arithmetic.
    """
    compiler = [find_compiler(), *FLAGS, f'-I{HERE / "include"}', f'-I{KERNELS}']
    device = {arch: [f'-D__CUDA_ARCH__={arch[3:]}0', '-x', 'c++'] for arch in ('sm_80', 'sm_90')}
    name = 'deform_attn_{}.cu'
    compile_all(
        folder,
        [
            [*compiler, *device['sm_80'], '-c', str(KERNELS / name.format('backward')), '-o', 'backward_sm_80.o'],
            [*compiler, *device['sm_90'], '-c', str(KERNELS / name.format('backward')), '-o', 'backward_sm_90.o'],
            # The forward kernels are the same for both.
            [*compiler, *device['sm_90'], '-c', str(KERNELS / name.format('forward')), '-o', 'forward.o'],
            [*compiler, '-c', str(HERE / 'emulator.cpp'), '-o', 'emulator.o'],
            [*compiler, '-c', str(HERE / 'driver.cpp'), '-o', 'driver.o'],
            [*compiler, str(HERE / 'headers.cpp'), '-o', 'headers'],
        ],
    )
    objects = ['forward.o', 'emulator.o', 'driver.o']
    compile_all(folder, [[*compiler, f'backward_{arch}.o', *objects, '-o', arch] for arch in device])
    return {program: folder / program for program in ('sm_80', 'sm_90', 'headers')}


@dataclass
class Case:
    """Arguments of one call, as the operators take them, and how to run it: with attention_weights ordinary
    deformable attention, without them key-aware attention.
    """

    query: Optional[Tensor]
    value: Tensor
    spatial_shapes: Tensor
    level_start_index: Tensor
    reference_points: Tensor
    sampling_offsets: Tensor
    grad_output: Tensor
    key: Optional[Tensor] = None
    attention_weights: Optional[Tensor] = None
    levels_in: str = 'host'
    deterministic: bool = False
    reference_grad: bool = True
    head_major: bool = False  # heads outside of tokens in the memory of value and key
    multiprocessors: int = 1  # of the GPU; with few of them tiles are large
    counted_tokens: int = 0  # additions to the gradients of the first tokens are counted
    order: str = 'forward'
    seed: int = 0
    missing_bytes: int = 0  # by which the program makes value too short

    @property
    def head_dim(self) -> int:
        return self.value.shape[3]

    def write(self, file) -> None:
        bs, num_queries, num_heads = self.sampling_offsets.shape[:3]
        given = self.attention_weights is not None
        header = [
            DTYPES.index(self.value.dtype),
            DTYPES.index(self.reference_points.dtype),
            DTYPES.index(self.sampling_offsets.dtype),
            DTYPES.index(self.attention_weights.dtype) if given else 0,
            *(bs, num_queries, self.value.shape[1], num_heads, self.head_dim),
            *(self.spatial_shapes.shape[0], self.sampling_offsets.shape[4]),
            *(self.reference_points.shape[3], self.sampling_offsets.shape[3]),
            2 if given else int(self.key is not None),
            LEVELS_IN.index(self.levels_in),
            int(self.deterministic),
            int(self.reference_grad),
            int(self.head_major),
            self.multiprocessors,
            self.counted_tokens,
            ORDERS.index(self.order),
            self.seed,
            self.missing_bytes,
        ]
        index = torch.int32 if self.levels_in == 'device int32' else torch.int64
        value, key = (
            tensor.transpose(1, 2) if self.head_major and tensor is not None else tensor
            for tensor in (self.value, self.key)
        )
        tensors = [torch.tensor(header), None if given else self.query, value, key, self.reference_points]
        tensors += [self.sampling_offsets, self.spatial_shapes.to(index), self.level_start_index.to(index)]
        for tensor in [*tensors, self.attention_weights, self.grad_output]:
            if tensor is not None:
                file.write(to_bytes(tensor))

    def read(self, file) -> Dict[str, Tensor]:
        accumulator = torch.float64 if self.value.dtype == torch.float64 else torch.float32
        grad_dtype = self.value.dtype if self.deterministic else accumulator
        given = self.attention_weights is not None
        bs, num_queries, num_heads = self.sampling_offsets.shape[:3]
        value_shape, query_shape = self.value.shape, (bs, num_queries, num_heads, self.head_dim)
        if self.head_major:
            value_shape = self.value.transpose(1, 2).shape
        layout = {
            'output': ((bs, num_queries, num_heads * self.head_dim), self.value.dtype),
            'logsumexp': None if given else (query_shape[:3], accumulator),
            'query': None if given else (query_shape, self.value.dtype),
            'value': (value_shape, grad_dtype),
            'key': None if self.key is None else (value_shape, grad_dtype),
            'attention_weights': (self.attention_weights.shape, self.attention_weights.dtype) if given else None,
            'reference_points': (self.reference_points.shape, self.reference_points.dtype)
            if self.reference_grad
            else None,
            'sampling_offsets': (self.sampling_offsets.shape, self.sampling_offsets.dtype),
            'additions': ((), torch.int64),
        }
        results = {name: from_bytes(file, torch.Size(kind[0]), kind[1]) for name, kind in layout.items() if kind}
        if self.head_major:
            results.update({name: results[name].transpose(1, 2) for name in ('value', 'key') if name in results})
        return results


def to_bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.detach().contiguous().flatten().view(torch.uint8).numpy()) if tensor.numel() else b''


def from_bytes(file, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    size = shape.numel() * dtype.itemsize
    raw = file.read(size)
    assert len(raw) == size, 'the program wrote less than expected'
    return torch.frombuffer(bytearray(raw), dtype=dtype).view(shape) if size else torch.empty(shape, dtype=dtype)


def run(program: Path, cases: List[Case], folder: Path) -> List[Dict[str, Tensor]]:
    """Run cases in the emulator.

    Returns:
        List[Dict[str, Tensor]]: For each case ``output``, ``logsumexp`` and, under the argument's name, the gradients.

    Raises:
        RuntimeError: If the program failed: an access out of bounds, threads that do not meet at a barrier, ...
    """
    with open(folder / 'in', 'wb') as file:
        for case in cases:
            case.write(file)
    result = subprocess.run([program, folder / 'in', folder / 'out'], capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f'{program.name} ended with {result.returncode}:\n{result.stderr[-8000:]}')
    with open(folder / 'out', 'rb') as file:
        results = [case.read(file) for case in cases]
        assert file.read() == b''
    return results
