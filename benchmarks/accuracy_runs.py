"""Run several trainings side by side until they are done or time is up, and go on where they stopped.

What is left to do for a run follows from the files in its folder alone, so that any call goes on with what earlier
ones left.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, List, Optional, Sequence, TextIO

ROOT = Path(__file__).resolve().parent.parent
GRACE = 15.0  # seconds that a process has to end once it was told to


@dataclass
class Run:
    """One training with its evaluation: a folder that holds ``config.py``."""

    folder: Path
    epochs: int
    amp: bool = False
    process: Optional[subprocess.Popen] = field(default=None, repr=False)
    log: Optional[TextIO] = field(default=None, repr=False)
    step: str = ''
    started: float = 0.0
    failed: bool = False

    @property
    def name(self) -> str:
        return '/'.join(self.folder.parts[-3:])

    @property
    def checkpoint(self) -> Path:
        return self.folder / f'epoch_{self.epochs}.pth'

    def metrics_file(self) -> Optional[Path]:
        """Metrics of the newest evaluation."""
        files = [path for path in self.folder.glob('test/*/*.json') if re.fullmatch(r'\d{8}_\d{6}', path.stem)]
        return max(files) if files else None

    def next_step(self) -> str:
        """'train', 'test' or '' when both are done."""
        pointer = self.folder / 'last_checkpoint'
        # The pointer is written after the checkpoint: a file that was cut off is not pointed to.
        if not pointer.exists() or Path(pointer.read_text().strip()).name != self.checkpoint.name:
            return 'train'
        return '' if self.metrics_file() else 'test'

    def command(self) -> List[str]:
        """Command of the next step."""
        config = self.folder / 'config.py'
        if self.next_step() == 'train':
            words = ['tools/train.py', config, '--work-dir', self.folder, '--resume', *(['--amp'] if self.amp else [])]
        else:
            words = ['tools/test.py', config, self.checkpoint, '--work-dir', self.folder / 'test']
        return [sys.executable, *map(str, words)]

    def start(self) -> None:
        """Start the next step in a process group of its own, so that its data workers end with it."""
        self.step, self.started = self.next_step(), time.monotonic()
        self.log = (self.folder / 'log.txt').open('a')
        # Several processes on one machine: each with one thread.
        environment = {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', **os.environ}
        folders = [str(ROOT), str(ROOT / 'benchmarks'), os.environ.get('PYTHONPATH')]
        environment['PYTHONPATH'] = os.pathsep.join(filter(None, folders))
        self.process = subprocess.Popen(
            self.command(), cwd=ROOT, env=environment, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def finish(self) -> None:
        """Note how long the step took, and whether it did what it should."""
        self.log.close()
        self.failed = self.process.returncode != 0 or self.next_step() == self.step
        self.process = None
        seconds = self.seconds()
        seconds[self.step] = round(seconds.get(self.step, 0.0) + time.monotonic() - self.started, 1)
        (self.folder / 'seconds.json').write_text(json.dumps(seconds))

    def seconds(self) -> dict:
        """Seconds of each step so far, all calls together."""
        path = self.folder / 'seconds.json'
        return json.loads(path.read_text()) if path.exists() else {}

    def send(self, number: int) -> None:
        """Send a signal to the process and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def last_line(self) -> str:
        """The last line of the log that tells of training."""
        path = self.folder / 'log.txt'
        lines = path.read_text(errors='replace').splitlines() if path.exists() else []
        told = [line for line in lines if 'Epoch(' in line] or lines
        return told[-1].partition(' - mmengine - INFO - ')[2] or told[-1] if told else ''


def stop(runs: Sequence[Run], grace: float = GRACE) -> None:
    """End the processes of ``runs``: what they did since their last checkpoint is lost."""
    for run in runs:
        run.send(signal.SIGTERM)
    limit = time.monotonic() + grace
    for run in runs:
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(max(0.1, limit - time.monotonic()))
        run.send(signal.SIGKILL)  # workers that outlived it
        run.process.wait()
        run.finish()
        run.failed = False


def run_all(
    runs: Sequence[Run],
    parallel: int,
    time_limit: float,
    done: Callable[[Run], None],
    interval: float = 1.0,
    report_every: float = 30.0,
) -> bool:
    """Bring runs to their end, in order, some of them at a time.

    Args:
        runs (Sequence[Run]): What to do; the first ones are started first.
        parallel (int): How many run at a time.
        time_limit (float): Seconds after which all are stopped.
        done (Callable[[Run], None]): Called with each run that has metrics, also with those that had them before.
        interval (float): Seconds between two looks at the processes.
        report_every (float): Seconds between two reports of progress.

    Returns:
        bool: Whether all runs have their metrics.
    """
    deadline, next_report = time.monotonic() + time_limit, time.monotonic() + report_every
    waiting, active, finished = list(runs), [], 0
    try:
        while waiting or active:
            for run in [run for run in active if run.process.poll() is not None]:
                active.remove(run)
                run.finish()
                if run.failed:
                    print(f'{run.name}: {run.step} failed, see {run.folder / "log.txt"}', flush=True)
                else:
                    waiting.insert(0, run)  # its next step comes first
            if time.monotonic() >= deadline:
                print(f'time is up: {len(active) + len(waiting)} runs are not done', flush=True)
                return False
            while waiting and len(active) < parallel:
                run = waiting.pop(0)
                if run.next_step():
                    run.start()
                    active.append(run)
                    print(f'{run.name}: {run.step}', flush=True)
                else:
                    finished += 1
                    done(run)
            if time.monotonic() >= next_report:
                next_report += report_every
                for run in active:
                    print(f'  {run.name}: {run.last_line()[:110]}', flush=True)
            if active:
                time.sleep(interval)
    finally:
        stop(active)
    return finished == len(runs)
