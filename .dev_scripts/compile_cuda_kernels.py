"""Compile every CUDA kernel with nvcc and report registers, spills, occupancy and issue slots.

Needs no GPU and no torch. Fails when a kernel does not compile, spills, or is above one of ``BOUNDS``. Issue slots are
counted in the disassembly: nvdisasm comes with the CUDA toolkit or ``pip install -r requirements/kernels.txt``.

    python .dev_scripts/compile_cuda_kernels.py --archs sm_80 sm_90
    python .dev_scripts/compile_cuda_kernels.py --report benchmarks/results/cuda_kernels
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, List, Optional

from issue_slots import Kernel, split_functions
from kernel_counts import ROOT, count_slots, find_launches, parse_symbol, resident_warps

KERNELS = ROOT / 'csrc' / 'cuda'
ARCHS = ('sm_75', 'sm_80', 'sm_86', 'sm_89', 'sm_90', 'sm_100', 'sm_120')
FLAGS = ('-std=c++17', '-O3', '-Xptxas', '-v', '-Werror', 'all-warnings')
# What may be issued at most, by architecture, kernel and count (see kernel_counts.py).
BOUNDS = {
    ('sm_90', 'forward float 32, shared key', 'warp_sample'): 75,
    ('sm_90', 'forward float 32, given weights', 'warp_sample'): 75,
    ('sm_90', 'forward bfloat16 32, shared key', 'query_sample'): 15,
    ('sm_90', 'forward bfloat16 32, given weights', 'query_sample'): 15,
    ('sm_90', 'forward half 32, shared key', 'query_sample'): 15,
}


@dataclass
class Report:
    """One kernel for one architecture."""

    kernel: str
    symbol: str
    registers: int  # of a thread
    shared: int  # static bytes; the kernels have dynamic shared memory only
    stack: int
    spill: int  # bytes of stores and loads
    threads: Optional[int] = None  # of a block, and what follows: of fast kernels
    shared_bytes: Optional[int] = None
    warps: Optional[int] = None  # resident on a multiprocessor
    slots: Optional[Dict[str, float]] = None


def find_tool(name: str) -> Optional[str]:
    """A program of the CUDA toolkit: on the PATH, or in a package of this Python."""
    packages = Path(sysconfig.get_paths()['purelib']) / 'nvidia'
    return shutil.which(name) or next((str(path) for path in sorted(packages.glob(f'cu*/bin/{name}'))), None)


def short_name(symbol: str) -> str:
    """Kernel and template arguments of a mangled name."""
    fast = parse_symbol(symbol)
    if fast is not None:
        return fast.name
    found = re.search(r'\d+([a-z_]+_kernel)(?:I(f|d|6__half|13__nv_bfloat16)E)?', symbol)
    if found is None:
        return symbol
    dtype = {'f': 'float', 'd': 'double', '6__half': 'half', '13__nv_bfloat16': 'bfloat16', None: ''}[found.group(2)]
    return f'{found.group(1)} {dtype}'.strip()


def parse(log: str) -> List[Report]:
    """Read the output of ``ptxas -v``."""
    reports = []
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
        symbol, spill = part.split("'")[0], numbers.pop('stores') + numbers.pop('loads')
        reports.append(Report(short_name(symbol), symbol, spill=spill, **numbers))
    return sorted(reports, key=lambda report: report.kernel)


def compile_file(nvcc: str, nvdisasm: Optional[str], source: Path, arch: str) -> List[Report]:
    """Compile one file for one architecture.

    Raises:
        RuntimeError: If nvcc fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        cubin = f'{folder}/kernels.cubin'
        command = [nvcc, *FLAGS, f'-arch={arch}', '-cubin', str(source), '-o', cubin]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise RuntimeError(f'{" ".join(command)} failed:\n{result.stdout}{result.stderr}')
        reports = parse(result.stdout + result.stderr)
        if not reports:
            raise RuntimeError(f'{source.name} holds no kernel')
        if nvdisasm is not None:
            listing = subprocess.run([nvdisasm, '-c', cubin], capture_output=True, text=True, check=True).stdout
            functions = split_functions(listing)
            for report in reports:
                fast = parse_symbol(report.symbol)
                if fast is None:
                    continue
                try:
                    report.slots = count_slots(fast, Kernel(functions[report.symbol]))
                except ValueError:  # loops are laid out in another way (before sm_90); a bound then fails below
                    report.slots = None
    return reports


def add_occupancy(results: Dict[str, List[Report]]) -> None:
    launches = find_launches()
    for arch, reports in results.items():
        for report in reports:
            fast = parse_symbol(report.symbol)
            if fast is not None:
                report.threads, report.shared_bytes = launches[fast]
                report.warps = resident_warps(arch, report.registers, report.threads, report.shared_bytes)


def supported_archs(nvcc: str) -> List[str]:
    listed = subprocess.run([nvcc, '--list-gpu-arch'], capture_output=True, text=True, check=True).stdout
    return [arch for arch in ARCHS if arch.replace('sm_', 'compute_') in listed.split()]


def tool_version(tool: str) -> str:
    text = subprocess.run([tool, '--version'], capture_output=True, text=True, check=True).stdout
    found = re.search(r'V([\d.]+)', text)
    return found.group(1) if found else 'unknown'


def sources_id() -> str:
    """Git's name of what csrc/cuda holds, which is the same in every commit that does not change it."""
    command = ['git', '-C', str(ROOT), 'rev-parse', '--short=12', 'HEAD:csrc/cuda']
    result = subprocess.run(command, capture_output=True, text=True)
    changed = subprocess.run(['git', '-C', str(ROOT), 'diff', '--quiet', 'HEAD', '--', 'csrc/cuda']).returncode != 0
    return (result.stdout.strip() + (', changed' if changed else '')) if result.returncode == 0 else 'unknown'


def make_resource_table(results: Dict[str, List[Report]]) -> str:
    """Markdown: a row for each kernel, and for each architecture registers / spilled bytes / resident warps."""
    cells = {(arch, report.kernel): report for arch, reports in results.items() for report in reports}
    lines = ['| kernel | ' + ' | '.join(results) + ' |', '|---' * (len(results) + 1) + '|']
    for name in dict.fromkeys(report.kernel for reports in results.values() for report in reports):
        row = []
        for arch in results:
            report = cells[arch, name]
            row.append(f'{report.registers} / {report.spill}' + (f' / {report.warps}' if report.warps else ''))
        lines.append(f'| {name} | ' + ' | '.join(row) + ' |')
    return '\n'.join(lines)


def make_slot_table(reports: List[Report]) -> str:
    """Markdown: issue slots of the fast kernels of one architecture."""
    lines = [
        '| kernel | warp-sample | head of a query and sample | 16-byte load | sorted corner |',
        '|---|---|---|---|---|',
    ]
    for report in reports:
        if report.slots is not None:
            row = [report.slots[key] for key in ('warp_sample', 'query_sample', 'load')]
            row.append(report.slots.get('corner', ''))
            lines.append(f'| {report.kernel} | ' + ' | '.join(map(str, row)) + ' |')
    return '\n'.join(lines)


def find_faults(results: Dict[str, List[Report]], max_spill: int, counted: bool) -> List[str]:
    """What is above its bound."""
    faults = []
    for arch, reports in results.items():
        for report in reports:
            if report.spill > max_spill:
                faults.append(f'{report.kernel} spills {report.spill} bytes on {arch}')
            if report.shared:
                faults.append(f'{report.kernel} has {report.shared} bytes of static shared memory on {arch}')
            for (bound_arch, kernel, count), bound in BOUNDS.items():
                if not counted or (bound_arch, kernel) != (arch, report.kernel):
                    continue
                if report.slots is None:
                    faults.append(f'{kernel} cannot be counted on {arch}')
                elif report.slots[count] > bound:
                    faults.append(
                        f'{kernel} issues {report.slots[count]} slots a {count} on {arch}, at most {bound} are allowed'
                    )
    return faults


def write_report(path: Path, results: Dict[str, List[Report]], nvcc: str, nvdisasm: Optional[str]) -> None:
    """Write PATH.json and PATH.md."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made_by = dict(nvcc=tool_version(nvcc), sources=sources_id(), flags=' '.join(FLAGS))
    if nvdisasm:
        made_by['nvdisasm'] = tool_version(nvdisasm)
    kernels = {arch: [asdict(report) for report in reports] for arch, reports in results.items()}
    path.with_suffix('.json').write_text(json.dumps(dict(made_by, kernels=kernels), indent=1) + '\n')
    parts = [
        '# The CUDA kernels, as compiled',
        ', '.join(f'{key} {made_by[key]}' for key in ('nvcc', 'nvdisasm') if key in made_by)
        + f', `git rev-parse HEAD:csrc/cuda` {made_by["sources"]}'
        + f', `{made_by["flags"]}`. Counted and estimated from the compiled code, **not measured on a GPU**.',
        '## Registers, spills, warps',
        'Registers of a thread / spilled bytes / warps of the fast kernels that a multiprocessor holds, by registers '
        'and shared memory (4 levels, 4 points).',
        make_resource_table(results),
    ]
    for arch, reports in results.items():
        if any(report.slots for report in reports):
            parts += [f'## Issue slots, {arch}', make_slot_table(reports)]
    path.with_suffix('.md').write_text('\n\n'.join(parts) + '\n')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--archs', nargs='+', help='such as sm_80; default: those of the list that nvcc knows')
    parser.add_argument('--max-spill', type=int, default=0, help='bytes that a kernel may spill (default: 0)')
    parser.add_argument('--nvcc', help='default: the one on the PATH or in a package')
    parser.add_argument('--nvdisasm', help='likewise; without it no issue slots are counted')
    parser.add_argument('--jobs', type=int, default=2, help='compilers that run at once')
    parser.add_argument('--report', type=Path, help='write REPORT.json and REPORT.md')
    parser.add_argument('--require', action='store_true', help='fail, not skip, without nvcc or nvdisasm')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    nvcc, nvdisasm = args.nvcc or find_tool('nvcc'), args.nvdisasm or find_tool('nvdisasm')
    for name, tool in (('nvcc', nvcc), ('nvdisasm', nvdisasm)):
        if tool is None:
            print(f'{name} not found: ' + ('skipped' if name == 'nvcc' else 'no issue slots are counted'))
            if args.require or name == 'nvcc':
                return 1 if args.require else 0
    archs = args.archs or supported_archs(nvcc)
    sources = sorted(KERNELS.glob('*.cu'))
    if not sources:
        print(f'no .cu file in {KERNELS}')
        return 1

    results: Dict[str, List[Report]] = {arch: [] for arch in archs}
    jobs = [(arch, source) for arch in archs for source in sources]
    with ThreadPoolExecutor(args.jobs) as pool:
        try:
            compiled = pool.map(lambda job: compile_file(nvcc, nvdisasm, job[1], job[0]), jobs)
            for (arch, _), reports in zip(jobs, compiled):
                results[arch] += reports
        except (RuntimeError, ValueError) as error:
            print(error)
            return 1
    add_occupancy(results)

    print(make_resource_table(results))
    for arch, reports in results.items():
        if nvdisasm:
            print(f'\nIssue slots, {arch}\n\n{make_slot_table(reports)}')
    if args.report:
        write_report(args.report, results, nvcc, nvdisasm)
    faults = find_faults(results, args.max_spill, nvdisasm is not None)
    for fault in faults:
        print(f'error: {fault}')
    count = sum(len(reports) for reports in results.values())
    print(f'{count} kernels, {len(archs)} architectures, {len(faults)} above a bound')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
