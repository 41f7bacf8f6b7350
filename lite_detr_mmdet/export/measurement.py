"""Time and memory of one call."""

import ctypes
import statistics
import time
from pathlib import Path
from typing import Callable, NamedTuple, Optional


class Measurement(NamedTuple):
    """What a call needs.

    Attributes:
        seconds (float): Median of several calls.
        memory (int, optional): Largest resident memory of the process during the first call, beyond what it held
            before, in bytes. None where the system does not tell.
    """

    seconds: float
    memory: Optional[int]

    def __str__(self) -> str:
        memory = 'not known here' if self.memory is None else f'{self.memory / 1e6:.0f} MB beyond what is loaded'
        return f'{self.seconds * 1e3:.1f} ms, peak memory {memory}'


def measure_peak(call: Callable[[], object]) -> Optional[int]:
    """Largest resident memory of this process during a call, beyond what it held before, in bytes.

    Runtimes keep what a call took for the next one: only the first call of a session shows its need. None where the
    system does not tell (it needs Linux's ``/proc``); the call runs all the same.
    """
    _return_free_memory()
    before = _reset_peak()
    call()
    peak = _status('VmHWM')
    return None if before is None or peak is None else max(peak - before, 0)


def measure_seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds of a call that has warmed up."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _return_free_memory() -> None:
    """Let glibc give free memory back: a call that reuses it would seem to need none."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)


def _reset_peak() -> Optional[int]:
    """Start anew with the largest memory of this process; its memory now, or None where that is not possible."""
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        return None
    return _status('VmRSS')


def _status(name: str) -> Optional[int]:
    """A line of /proc/self/status in bytes, where there is one."""
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f'{name}:')), None)
