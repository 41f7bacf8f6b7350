"""Compile every CUDA kernel with nvcc and report registers, shared memory and spills. Needs no GPU and no torch.

Fails when a kernel does not compile, or spills more than ``--max-spill`` bytes.

    python .dev_scripts/compile_cuda_kernels.py --archs sm_80 sm_90
    python .dev_scripts/compile_cuda_kernels.py --report benchmarks/results/ptxas.md
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / 'csrc' / 'cuda'
ARCHS = ('sm_75', 'sm_80', 'sm_86', 'sm_89', 'sm_90', 'sm_100', 'sm_120')
FLAGS = ('-std=c++17', '-O3', '-Xptxas', '-v', '-Werror', 'all-warnings')


@dataclass
class Resources:
    """What one kernel takes, as ptxas reports it: registers of a thread, the rest in bytes."""

    kernel: str
    registers: int
    shared: int
    stack: int
    spill: int  # stores and loads together


def demangle(names: List[str]) -> Dict[str, str]:
    """Readable names where c++filt is installed: the kernel and its template arguments."""
    if not names or shutil.which('c++filt') is None:
        return {name: name for name in names}
    lines = subprocess.run(['c++filt', *names], capture_output=True, text=True, check=True).stdout.splitlines()
    short = {}
    for name, line in zip(names, lines):
        found = re.search(r'(\w+_kernel(?:<.*?>)?)\(', line)
        short[name] = found.group(1) if found else line
    return short


def parse(log: str) -> List[Resources]:
    """Read the output of ``ptxas -v``."""
    kernels = []
    for part in re.split(r"Compiling entry function '", log)[1:]:
        numbers = {
            key: int(found.group(1)) if (found := re.search(pattern, part)) else 0
            for key, pattern in dict(
                registers=r'Used (\d+) registers',
                shared=r'(\d+) bytes smem',
                stack=r'(\d+) bytes stack frame',
                stores=r'(\d+) bytes spill stores',
                loads=r'(\d+) bytes spill loads',
            ).items()
        }
        if numbers['registers'] == 0:
            raise ValueError(f'no registers in the report of ptxas:\n{part}')
        spill = numbers['stores'] + numbers['loads']
        kernels.append(Resources(part.split("'")[0], numbers['registers'], numbers['shared'], numbers['stack'], spill))
    short = demangle([kernel.kernel for kernel in kernels])
    for kernel in kernels:
        kernel.kernel = short[kernel.kernel]
    return sorted(kernels, key=lambda kernel: kernel.kernel)


def compile_file(nvcc: str, source: Path, arch: str) -> List[Resources]:
    """Compile one file for one architecture.

    Raises:
        RuntimeError: If nvcc fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, *FLAGS, f'-arch={arch}', '-c', str(source), '-o', f'{folder}/kernel.o']
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f'{" ".join(command)} failed:\n{result.stdout}{result.stderr}')
    kernels = parse(result.stdout + result.stderr)
    if not kernels:
        raise RuntimeError(f'{source.name} holds no kernel')
    return kernels


def supported_archs(nvcc: str) -> List[str]:
    listed = subprocess.run([nvcc, '--list-gpu-arch'], capture_output=True, text=True, check=True).stdout
    return [arch for arch in ARCHS if arch.replace('sm_', 'compute_') in listed.split()]


def nvcc_version(nvcc: str) -> str:
    text = subprocess.run([nvcc, '--version'], capture_output=True, text=True, check=True).stdout
    found = re.search(r'V([\d.]+)', text)
    return found.group(1) if found else 'unknown'


def commit() -> str:
    command = ['git', '-C', str(ROOT), 'describe', '--always', '--abbrev=12', '--dirty', '--exclude=*']
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else 'unknown'


def make_table(archs: List[str], results: Dict[str, List[Resources]]) -> str:
    """Markdown: a row for each kernel, and for each architecture registers / spilled bytes."""
    names = [kernel.kernel for kernel in results[archs[0]]]
    cells = {(arch, kernel.kernel): kernel for arch in archs for kernel in results[arch]}
    lines = ['| kernel | ' + ' | '.join(archs) + ' |', '|---' * (len(archs) + 1) + '|']
    for name in names:
        row = [f'{cells[arch, name].registers} / {cells[arch, name].spill}' for arch in archs]
        lines.append(f'| `{name}` | ' + ' | '.join(row) + ' |')
    return '\n'.join(lines)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--archs', nargs='+', help='such as sm_80; default: those of the list that nvcc knows')
    parser.add_argument('--max-spill', type=int, default=0, help='bytes that a kernel may spill (default: 0)')
    parser.add_argument('--nvcc', default='nvcc')
    parser.add_argument('--jobs', type=int, default=2, help='compilers that run at once')
    parser.add_argument('--report', type=Path, help='write the table to this Markdown file')
    parser.add_argument('--require', action='store_true', help='fail, not skip, when there is no nvcc')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if shutil.which(args.nvcc) is None:
        print('nvcc not found: skipped')
        return 1 if args.require else 0
    archs = args.archs or supported_archs(args.nvcc)
    sources = sorted(KERNELS.glob('*.cu'))
    if not sources:
        print(f'no .cu file in {KERNELS}')
        return 1

    results: Dict[str, List[Resources]] = {arch: [] for arch in archs}
    jobs = [(arch, source) for arch in archs for source in sources]
    with ThreadPoolExecutor(args.jobs) as pool:
        try:
            for (arch, _), kernels in zip(jobs, pool.map(lambda job: compile_file(args.nvcc, job[1], job[0]), jobs)):
                results[arch] += kernels
        except RuntimeError as error:
            print(error)
            return 1

    table = make_table(archs, results)
    print(table)
    if args.report:
        args.report.parent.mkdir(parents=True, exist_ok=True)
        args.report.write_text(
            '# Resources of the CUDA kernels\n\n'
            f'nvcc {nvcc_version(args.nvcc)}, commit {commit()}, `{" ".join(FLAGS)}`. A cell holds the registers of a '
            'thread / the spilled bytes (stores and loads). Shared memory is dynamic and at most 48 KiB a block.\n\n'
            f'{table}\n'
        )
    spilled = [
        f'{kernel.kernel} spills {kernel.spill} bytes on {arch}'
        for arch in archs
        for kernel in results[arch]
        if kernel.spill > args.max_spill
    ]
    static = [f'{k.kernel} has {k.shared} bytes of shared memory' for arch in archs for k in results[arch] if k.shared]
    for line in [*spilled, *static]:
        print(f'error: {line}')
    count = sum(len(kernels) for kernels in results.values())
    print(f'{count} kernels, {len(archs)} architectures, {len(spilled)} spill more than {args.max_spill} bytes')
    return 1 if spilled or static else 0


if __name__ == '__main__':
    sys.exit(main())
