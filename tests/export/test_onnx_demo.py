"""demo/onnx_demo.py: a folder of images in, pictures and detections out, with an exported model alone."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from lite_detr_mmdet.export import ImageFormat, export_onnx

DEMO = Path(__file__).resolve().parents[2] / 'demo' / 'onnx_demo.py'
pytestmark = pytest.mark.process
for name in ('onnx', 'onnxscript', 'onnxslim', 'onnxruntime'):
    pytest.importorskip(name, reason=f'{name} is not installed: pip install -r requirements/export.txt')


def test_folder(detector, tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    cv2.imwrite(str(images / 'one.png'), np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
    metadata = dict(classes=json.dumps(['a', 'b']))
    export_onnx(detector('joint'), tmp_path / 'model.onnx', ImageFormat(96, 128), metadata=metadata)
    command = [
        sys.executable,
        DEMO,
        tmp_path / 'model.onnx',
        images,
        tmp_path / 'out',
        '--latency',
        '--score-thr',
        '0',
    ]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (found,) = json.loads((tmp_path / 'out' / 'detections.json').read_text()).values()
    assert len(found['boxes']) == len(found['scores']) == 10 and 'p50' in result.stdout
    assert cv2.imread(str(tmp_path / 'out' / 'one.png')).shape == (60, 80, 3)
