"""The environment that belongs beside every measured number."""

import contextlib
import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Dict

import torch

from .. import ops  # noqa: F401  loads the operator that knows its instruction set
from .records import Environment

ROOT = Path(__file__).resolve().parents[2]
# A change elsewhere, in a text say, leaves the measured code as committed.
MEASURED = ('benchmarks/*.py', 'benchmarks/*.cu', 'configs', 'csrc', 'lite_detr_mmdet')

# Settings of glibc with which freed memory stays with the process, so that nothing measured pays for page faults.
KEEP_PAGES = dict(
    MALLOC_TRIM_THRESHOLD_=str(1 << 34), MALLOC_MMAP_THRESHOLD_=str(1 << 34), MALLOC_TOP_PAD_=str(1 << 28)
)


def keep_pages() -> None:
    """Start this program again with ``KEEP_PAGES``, which glibc reads at start only, unless they are set already."""
    if any(os.environ.get(name) != value for name, value in KEEP_PAGES.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_PAGES})


def run_git(*arguments: str) -> str:
    """Output of a git command in this repository, 'unknown' where there is no git."""
    try:
        command = ['git', '-C', str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def cpu_name() -> str:
    """Name of the processor, as the system reports it."""
    info = Path('/proc/cpuinfo')
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def package_versions(*names: str) -> Dict[str, str]:
    """Versions of Python, torch, the OpenMMLab packages that are installed, and the packages named."""
    versions = {'python': platform.python_version(), 'torch': torch.__version__}
    for name in ('mmcv', 'mmengine', 'mmdet', *names):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def describe_environment(device: str = 'cpu', *packages: str) -> Environment:
    """What a reader must know to repeat a measurement that is made now, in this process.

    Args:
        device (str): Device that is measured, 'cpu' or a CUDA device. Defaults to 'cpu'.
        packages (str): Packages that take part beside torch and OpenMMLab's.
    """
    commit = run_git('rev-parse', '--short', 'HEAD')
    changed = commit != 'unknown' and run_git('status', '--porcelain', '--', *MEASURED)
    on_gpu = device != 'cpu'
    versions = package_versions(*packages)
    if on_gpu:
        versions['cuda'] = torch.version.cuda
    knows_cpu = hasattr(torch.ops.lite_detr, 'cpu_capability')
    return Environment(
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        commit=commit + (' with changes' if changed else ''),
        command=' '.join(['python', *sys.argv]),
        device=device.partition(':')[0],
        cpu=f'{cpu_name()}, {os.cpu_count()} cores',
        threads=torch.get_num_threads(),
        load_average=round(os.getloadavg()[0], 2),
        versions=versions,
        allocator={name: value for name, value in os.environ.items() if name.startswith(('MALLOC_', 'LD_PRELOAD'))},
        instruction_set=torch.ops.lite_detr.cpu_capability() if knows_cpu else None,
        gpu=torch.cuda.get_device_name(device) if on_gpu else None,
    )
