"""The report of what was done to a model."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Dict


@dataclass
class AccelerationReport:
    """What :func:`lite_detr_mmdet.accelerate` changed and what it left, with reasons.

    Attributes:
        changed (Counter): How many modules were changed, by what was done.
        skipped (dict[str, str]): What was not done, and why.
    """

    changed: Counter = field(default_factory=Counter)
    skipped: Dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = ['Accelerated for inference:' if self.changed else 'Nothing was accelerated:']
        lines += [f'  {what}' + (f' ({count})' if count > 1 else '') for what, count in self.changed.items()]
        if self.skipped:
            lines += ['Left as it is:', *(f'  {what}: {why}' for what, why in self.skipped.items())]
        return '\n'.join(lines)
