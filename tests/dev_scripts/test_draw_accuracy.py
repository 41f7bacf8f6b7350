""".dev_scripts/draw_accuracy.py: a hit is green, a miss red, a false alarm blue."""

import importlib.util
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).resolve().parents[2] / '.dev_scripts' / 'draw_accuracy.py'


def test_colours_of_hits_misses_and_false_alarms():
    spec = importlib.util.spec_from_file_location('draw_accuracy', SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    objects = [dict(category_id=1, bbox=[10, 10, 20, 20]), dict(category_id=1, bbox=[60, 10, 20, 20])]
    detections = [
        dict(category_id=1, bbox=[11, 11, 20, 20], score=0.9),
        dict(category_id=1, bbox=[10, 12, 20, 20], score=0.8),  # a second time: a false alarm
        dict(category_id=2, bbox=[60, 10, 20, 20], score=0.7),  # of another class
    ]
    image = script.mark(np.zeros((50, 100, 3), np.uint8), objects, detections)
    assert tuple(image[10, 20]) == script.GREEN
    assert tuple(image[32, 20]) == script.BLUE
    assert tuple(image[10, 70]) == script.RED  # drawn last
