"""What the fast kernels of deformable attention issue and how many of their warps fit on a multiprocessor.

Counted for four levels and four points, that is 16 samples a head of a query. A warp works on several heads of queries
at once; a *warp-sample* is what it issues for one sample of each.
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Tuple

from issue_slots import Kernel, Loop

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = 16
TYPES = {'f': 'float', '6__half': 'half', '13__nv_bfloat16': 'bfloat16'}
ATTENTION = ('shared key', 'separate key', 'given weights')
LOAD = r'LDG\.E\.128\.CONSTANT'
# Of a multiprocessor: threads, blocks, KiB of shared memory, KiB that the system keeps of it for each block.
LIMITS = {
    'sm_75': (1024, 16, 64, 0),
    'sm_80': (2048, 32, 164, 1),
    'sm_86': (1536, 16, 100, 1),
    'sm_89': (1536, 24, 100, 1),
    'sm_90': (2048, 32, 228, 1),
    'sm_100': (2048, 32, 228, 1),
    'sm_120': (1536, 24, 100, 1),
}


@dataclass(frozen=True)
class FastKernel:
    """Which fast kernel it is: its template arguments."""

    direction: str  # 'forward' or 'backward'
    dtype: str
    head_dim: int
    attention: int

    @property
    def name(self) -> str:
        return f'{self.direction} {self.dtype} {self.head_dim}, {ATTENTION[self.attention]}'

    @property
    def lanes(self) -> int:
        """Threads of a head of a query: 16 bytes each."""
        return self.head_dim * (4 if self.dtype == 'float' else 2) // 16

    @property
    def chunk(self) -> int:
        """FastShape::kChunk."""
        return 16 if self.lanes >= 8 else 8


def parse_symbol(symbol: str) -> Optional[FastKernel]:
    """The fast kernel of a mangled name; None for another kernel."""
    found = re.search(r'(forward|backward)_fast_kernelI(\w+?)Li(\d+)ELNS\d*_9AttentionE(\d)E', symbol)
    if found is None:
        return None
    return FastKernel(found.group(1), TYPES[found.group(2)], int(found.group(3)), int(found.group(4)))


def count_slots(which: FastKernel, kernel: Kernel) -> Dict[str, float]:
    """Issue slots of the loop over the queries.

    Returns:
        Dict[str, float]: ``warp_sample``, ``query_sample`` (of one head of one query: a warp-sample's share), ``load``
        (of one load of 16 bytes a lane). Those of a backward kernel leave out its scatter, which has ``corner``: of a
        warp, for one corner of each of its groups, an addition to memory included.

    Raises:
        ValueError: If the loops are not those that are expected: then this counting is to be brought up to date.
    """
    gather = kernel.innermost(LOAD, least=4)
    chunks = kernel.around(gather) if gather else None
    queries = kernel.around(chunks) if chunks else None
    if queries is None:
        raise ValueError(f'{which.name}: no loop over queries, chunks and samples')
    loads = SAMPLES * 4 * (2 if which.attention == 1 else 1)
    rounds = SAMPLES / which.chunk
    gathers = loads / rounds / kernel.contains(gather, LOAD)
    if gathers != int(gathers) or gathers < 1:
        raise ValueError(f'{which.name}: {kernel.contains(gather, LOAD)} loads in the loop over the samples')

    def trips(loop: Loop) -> float:
        if loop is gather:
            return gathers
        if loop is chunks:
            return rounds
        if loop in chunks.inner:  # the locations of a chunk, where they are a loop
            return which.chunk / which.lanes
        if loop in queries.inner:  # of backward: the samples once more, and their gradients
            return max(SAMPLES / which.lanes, 1)
        return 1

    total = kernel.count(queries, trips) / SAMPLES
    counts = dict(warp_sample=total, query_sample=total / (32 / which.lanes), load=total / (loads / SAMPLES))
    if which.direction == 'backward':
        outside = [loop for loop in kernel.all_loops() if not loop.blocks & queries.blocks]
        adding = [loop for loop in outside if kernel.contains(loop, r'REDG?\.|ATOMG\.') and not loop.inner]
        if not adding:
            raise ValueError(f'{which.name}: no loop over sorted corners')
        corners = max(adding, key=lambda loop: kernel.contains(loop, r'LDS\.128'))
        counts['corner'] = kernel.count(corners) / max(kernel.contains(corners, r'LDS\.128'), 1)
    return {key: round(value, 2) for key, value in counts.items()}


def find_launches() -> Dict[FastKernel, Tuple[int, int]]:
    """Threads and bytes of shared memory of a block; needs g++."""
    folder = ROOT / 'tests' / 'ops' / 'cuda_host' / 'include'
    with tempfile.TemporaryDirectory() as build:
        program = f'{build}/launches'
        command = ['g++', '-std=c++17', '-w', f'-I{folder}', f'-I{ROOT / "csrc" / "cuda"}']
        command += [str(ROOT / '.dev_scripts' / 'print_cuda_launches.cpp'), '-o', program]
        subprocess.run(command, check=True)
        lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split('\n')
    launches = {}
    for direction, dtype, head_dim, attention, threads, shared in filter(None, map(str.split, lines)):
        launches[FastKernel(direction, dtype, int(head_dim), int(attention))] = int(threads), int(shared)
    return launches


def resident_warps(arch: str, registers: int, threads: int, shared_bytes: int) -> int:
    """Warps that a multiprocessor can hold at once."""
    max_threads, max_blocks, shared_kib, reserved_kib = LIMITS[arch]
    warps = threads // 32
    warp_registers = -(-registers * 32 // 256) * 256  # handed out by 256
    blocks = min(
        max_blocks,
        max_threads // threads,
        65536 // warp_registers // warps,
        int(shared_kib * 1024 // (shared_bytes + reserved_kib * 1024)),
    )
    return blocks * warps
