"""Seconds and peak memory of detectors, in all and of each of their parts: one engine for every benchmark of them."""

import statistics
import sys
import time
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Callable, Dict, Iterator, List, Optional

import torch
from torch import nn

from ..timing import measure_peak_bytes, time_interleaved
from .calls import Autocast, detector_call
from .compute import PARTS, check_parts


def percentile(seconds: List[float], share: float) -> float:
    """The smallest of some values that at least this share of them does not exceed."""
    ordered = sorted(seconds)
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)]


def measure_peaks(calls: Dict[str, Callable], device: str) -> Dict[str, Optional[int]]:
    """Peak bytes of each call, beyond what is there before. Calls that do not fit are taken out of ``calls``."""
    peaks: Dict[str, Optional[int]] = dict.fromkeys(calls)
    for name, call in list(calls.items()):
        try:
            call()
            peaks[name] = measure_peak_bytes(call, device)
        except torch.cuda.OutOfMemoryError as error:
            print(f'{name} does not fit: {str(error).splitlines()[0]}', file=sys.stderr)
            del calls[name]
        if device != 'cpu':
            torch.cuda.empty_cache()
    return peaks


def measure_calls(calls: Dict[str, Callable], repeat: int, device: str) -> List[Dict[str, Any]]:
    """Time and peak memory of calls, interleaved; rows without those that do not fit into memory.

    Args:
        calls (dict[str, Callable]): What to run, by name.
        repeat (int): Timed rounds.
        device (str): 'cpu' or a CUDA device.

    Returns:
        list[dict]: For each call its name (``config``), ``median_s``, ``p95_s``, ``min_s``, ``peak_bytes`` and the
        ``seconds`` of every round.
    """
    peaks = measure_peaks(calls, device)
    return [
        dict(
            config=name,
            median_s=statistics.median(seconds),
            p95_s=percentile(seconds, 0.95),
            min_s=min(seconds),
            peak_bytes=peaks[name],
            seconds=seconds,
        )
        for name, seconds in time_interleaved(calls, repeat, device).items()
    ]


class PartTimer:
    """Seconds that a detector spends in each of its parts.

    Query selection counts as ``other``; box branches with which the decoder refines its references count as its own.

    Args:
        device (str): 'cpu' or a CUDA device, which is waited for at every boundary.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: Dict[str, float] = {}
        self.stack: List[str] = ['other']
        self.last = 0.0

    def _switch(self) -> None:
        """Give the time since the last switch to the part that is running."""
        if self.device != 'cpu':
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[self.stack[-1]] = self.seconds.get(self.stack[-1], 0.0) + now - self.last
        self.last = now

    def wrap(self, part: str, function: Callable) -> Callable:
        """A function whose time counts as that of a part."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self.stack.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self.stack.pop()

        return timed

    @contextmanager
    def listening(self, model: nn.Module) -> Iterator[None]:
        """Watch the parts of a model; they are as before afterwards."""
        # Methods of the detector rather than the modules, which may be compiled.
        methods = dict(
            backbone=(model.backbone, 'forward'),
            neck=(model.neck, 'forward'),
            encoder=(model, 'forward_encoder'),
            decoder=(model, 'forward_decoder'),
            bbox_head=(model.bbox_head, 'predict'),
        )
        with ExitStack() as stack:
            for part, (module, name) in methods.items():
                stack.callback(module.__dict__.pop, name)
                module.__dict__[name] = self.wrap(part, getattr(module, name))
            yield

    def run(self, call: Callable) -> Dict[str, float]:
        """Seconds of each part in one call, and of the ``other`` code between them."""
        self.seconds = dict.fromkeys((*PARTS, 'other'), 0.0)
        self.last = time.perf_counter()
        call()
        self._switch()
        return dict(self.seconds)


def time_parts(
    models: Dict[str, nn.Module], batch: dict, repeat: int, device: str, autocast: Autocast = nullcontext
) -> Dict[str, Dict[str, float]]:
    """Median seconds of each part of detectors in inference, interleaved.

    The parts are timed in runs of their own: on a GPU, waiting at their boundaries takes time.

    Args:
        models (dict[str, nn.Module]): The detectors, by name.
        batch (dict): Images and data samples, as :func:`lite_detr_mmdet.analysis.calls.make_batch` makes them.
        repeat (int): Timed rounds.
        device (str): 'cpu' or a CUDA device.
        autocast (Callable): Makes the context to run in. Defaults to one without autocast.

    Returns:
        dict[str, dict[str, float]]: For each detector the seconds of ``PARTS`` and of ``other`` code.

    Raises:
        ValueError: If a model lacks one of the parts.
    """
    for model in models.values():
        check_parts(model)
    calls = {name: detector_call(model, batch, autocast) for name, model in models.items()}
    rounds: Dict[str, List[Dict[str, float]]] = {name: [] for name in models}
    for _ in range(repeat):
        for name, model in models.items():
            timer = PartTimer(device)
            with timer.listening(model):
                rounds[name].append(timer.run(calls[name]))
    return {
        name: {part: statistics.median(seconds[part] for seconds in found) for part in (*PARTS, 'other')}
        for name, found in rounds.items()
    }
