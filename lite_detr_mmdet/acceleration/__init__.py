"""Fast inference on a CPU."""

from .accelerate import accelerate, restore
from .report import AccelerationReport

__all__ = ['AccelerationReport', 'accelerate', 'restore']
