"""Read the scalars that a training run wrote."""

import json
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple, Union

Curve = Tuple[List[float], List[float]]


class TrainingLog(NamedTuple):
    """Curves of a run, each as its steps and its values.

    Attributes:
        train (dict[str, Curve]): By name, over iterations.
        val (dict[str, Curve]): By name, over epochs; over iterations where training is not by epochs.
    """

    train: Dict[str, Curve]
    val: Dict[str, Curve]


def read_training_log(work_dir: Union[str, Path]) -> TrainingLog:
    """Read all runs of a work dir, in the order of time; what a resumed run repeats replaces what was there.

    Args:
        work_dir (str | Path): Folder of a run of ``tools/train.py``.

    Raises:
        FileNotFoundError: If it holds no ``*/vis_data/scalars.json``.
        ValueError: If such a file holds anything but one object in each line.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(
            f'{work_dir} holds no */vis_data/scalars.json: it must be the work dir of a training run'
        )
    train: Dict[str, Dict[float, float]] = {}
    val: Dict[str, Dict[float, float]] = {}
    for path in files:
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                step = entry['iter'] if 'loss' in entry else entry['step']
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines):
                    continue  # the run was stopped while it wrote
                raise ValueError(f'{path}, line {number}, must be an object with a step: {error}') from error
            curves = train if 'loss' in entry else val
            for name, value in entry.items():
                if isinstance(value, (int, float)) and name not in ('iter', 'step', 'epoch'):
                    curves.setdefault(name, {})[step] = value
    return TrainingLog(*({name: _sorted(curve) for name, curve in curves.items()} for curves in (train, val)))


def _sorted(curve: Dict[float, float]) -> Curve:
    steps = sorted(curve)
    return steps, [curve[step] for step in steps]
