"""demo/cpp: a program without Python detects what the detector in torch detects."""

import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.runtime_libraries import build_runtime_library

from lite_detr_mmdet.export import BOUNDS, ImageFormat, export_onnx
from lite_detr_mmdet.export.compare import Detections, compare_detections
from lite_detr_mmdet.export.images import generate_image
from lite_detr_mmdet.export.verification import Batch, normalize, predict

SOURCES = Path(__file__).resolve().parents[2] / 'demo' / 'cpp'
pytestmark = [pytest.mark.slow, pytest.mark.process]
SIZE = (96, 128)


@pytest.fixture(scope='module')
def program(tmp_path_factory):
    openvino = pytest.importorskip('openvino.utils')
    if shutil.which('cmake') is None or not (shutil.which('c++') or shutil.which('g++')):
        pytest.skip('CMake or a C++ compiler is not installed')
    folder = tmp_path_factory.mktemp('cpp')
    for command in (
        ['cmake', '-S', SOURCES, '-B', folder, f'-DOpenVINO_DIR={openvino.get_cmake_path()}'],
        ['cmake', '--build', folder],
    ):
        built = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return folder / 'lite_detr_detect'


def run(*arguments) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')}
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, env=environment)


@pytest.mark.parametrize('form', ['grid', 'op'])
@pytest.mark.parametrize('suffix', ['ppm', 'bmp'])
def test_detects_what_torch_detects(program, detector, exported, form, suffix, tmp_path):
    model, options = exported[0], []
    if form == 'op':
        if not hasattr(torch.ops.lite_detr, 'key_aware_deform_attn'):
            pytest.skip('the operators are not compiled for torch')
        options = ['--extension', build_runtime_library('openvino', tmp_path)]
        model = tmp_path / 'model.onnx'
        export_onnx(detector('joint'), model, ImageFormat(*SIZE), attention='op', check=False)
    picture = generate_image(*SIZE, seed=3)
    cv2.imwrite(str(tmp_path / f'in.{suffix}'), picture)
    arguments = (tmp_path / f'in.{suffix}', tmp_path / 'out.ppm', '--score-thr', '0', '--threads', '2')
    result = run(program, model, *arguments, *options)
    assert result.returncode == 0, result.stderr
    rows = np.array([list(map(float, line.split())) for line in result.stdout.splitlines()])
    found = Detections(rows[:, 2:], rows[:, 1], rows[:, 0].astype(int))
    batch = Batch(torch.from_numpy(picture).permute(2, 0, 1)[None].float(), [SIZE])
    (expected,) = predict(detector('joint'), batch, normalize(detector('joint'), batch))
    difference = compare_detections(expected, found, BOUNDS['float32'])
    assert difference.is_within(BOUNDS['float32']) and difference.compared == 10, difference
    assert cv2.imread(str(tmp_path / 'out.ppm')).shape == (*SIZE, 3)


def test_refuses_by_name(program, exported, tmp_path):
    picture = tmp_path / 'in.ppm'
    for content, message in (
        (b'P6\n128 96\n255\n' + bytes(100), 'ends before its last pixel'),
        (b'P6\n99999999 96\n255\n', 'from 1 to 32768 pixels per side'),
        (b'BM' + bytes(20), 'ends within its head'),
        (b'no image', 'must be a binary PPM or an uncompressed BMP'),
    ):
        picture.write_bytes(content)
        result = run(program, exported[0], picture, tmp_path / 'out.ppm')
        assert result.returncode == 1 and message in result.stderr and 'in.ppm' in result.stderr
    assert 'usage' in run(program, '--threads').stderr
    assert not (tmp_path / 'out.ppm').exists()
