"""The environment that belongs beside every measured number."""

import os
import platform
import subprocess
from datetime import date
from pathlib import Path

import torch

ALLOCATOR_VARIABLES = ('MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_TOP_PAD_', 'LD_PRELOAD')


def cpu_name() -> str:
    """Name of the processor, as the system reports it."""
    for line in Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else []:
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def git_commit() -> str:
    """Short hash of the commit, with a mark when files differ from it."""
    root = Path(__file__).resolve().parent
    try:
        command = ['git', '-C', str(root), 'describe', '--always', '--dirty', '--abbrev=10']
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def describe_environment(device: str = 'cpu') -> dict:
    """What a reader must know to repeat a measurement.

    Args:
        device (str): Device that was measured, 'cpu' or a CUDA device. Defaults to 'cpu'.

    Returns:
        dict[str, str | int]: Names and values.
    """
    allocator = {name: os.environ[name] for name in ALLOCATOR_VARIABLES if name in os.environ}
    environment = dict(
        date=date.today().isoformat(),
        commit=git_commit(),
        cpu=f'{cpu_name()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}',
        threads=torch.get_num_threads(),
        allocator=f'glibc with {allocator}' if allocator else 'glibc, default settings',
        python=platform.python_version(),
        torch=torch.__version__,
    )
    if device != 'cpu':
        environment['gpu'] = torch.cuda.get_device_name(device)
        environment['cuda'] = torch.version.cuda
    return environment
