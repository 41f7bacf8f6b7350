"""Seconds and peak memory of calls, on a CPU or a GPU."""

import time
from typing import Callable, Dict, List

import torch

# What the GPU does while the CPU prepares the launches of a call, in cycles: about two milliseconds. Without it, the
# time of a short kernel would be that of launching it.
HEAD_START = 4_000_000
FLUSH_BYTES = 256 << 20  # more than any cache holds


def measure_seconds(run: Callable[[], object], device: str, flush: bool = False) -> float:
    """Wall-clock seconds on the CPU, seconds between two events on a GPU.

    Args:
        run (Callable[[], object]): What to time.
        device (str): 'cpu' or a CUDA device.
        flush (bool): Empty the caches of the GPU first. Defaults to False.
    """
    if device == 'cpu':
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    if flush:
        torch.zeros(FLUSH_BYTES, dtype=torch.uint8, device=device)
    torch.cuda._sleep(HEAD_START)
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def measure_peak_bytes(run: Callable[[], object], device: str) -> int:
    """Largest sum of what torch has allocated at once during a run, beyond what was there before."""
    if device != 'cpu':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]']
    peak = current = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak


def time_interleaved(functions: Dict[str, Callable[[], object]], repeat: int, device: str) -> Dict[str, List[float]]:
    """Seconds of each function, one call after the other in every round, so that all meet the same noise.

    Args:
        functions (dict[str, Callable[[], object]]): What to time, by name.
        repeat (int): Timed rounds; one more before them warms up.
        device (str): 'cpu' or a CUDA device.
    """
    seconds: Dict[str, List[float]] = {name: [] for name in functions}
    for index in range(repeat + 1):
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
