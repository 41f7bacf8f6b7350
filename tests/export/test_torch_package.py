"""Packages of torch.export and AOTInductor predict what the detector predicts and keep the operator."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.fork_server import run_script

from lite_detr_mmdet.export import ImageFormat, VerificationError
from lite_detr_mmdet.export.torch_package import PackageRunner, export_torch

from .conftest import small_config

IMAGES = ImageFormat(96, 128)
needs_operators = pytest.mark.skipif(
    not hasattr(torch.ops.lite_detr, 'key_aware_deform_attn'), reason='the operators are not compiled'
)


def run_without_mmdetection(path: Path, load: str) -> None:
    """Load and call a package in a process that has torch and the operators alone, as docs/deployment.md says."""
    code = f"""
import sys, torch, lite_detr_mmdet.ops
outputs = {load}({str(path)!r}){'' if 'aoti' in load else '.module()'}(torch.zeros(1, 3, 96, 128))
assert not {{'mmcv', 'mmdet', 'mmengine'}} & sys.modules.keys(), 'OpenMMLab was imported'
print(*(tuple(output.shape) for output in outputs))
"""
    env = {**os.environ, 'LITE_DETR_OPS_ONLY': '1', 'PYTHONPATH': str(Path(__file__).resolve().parents[2])}
    result = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert result.stdout == '(1, 10, 4) (1, 10) (1, 10)\n', result.stderr


@needs_operators
def test_keeps_the_operator(detector, tmp_path):
    path = tmp_path / 'model.pt2'
    report = export_torch(detector('one_stage'), path, IMAGES)
    assert len(report.lines) == 3 and list(tmp_path.iterdir()) == [path]
    targets = {str(node.target) for node in torch.export.load(str(path)).graph.nodes}
    assert 'lite_detr.key_aware_deform_attn.default' in targets
    run_without_mmdetection(path, 'torch.export.load')


def test_a_package_that_differs_is_not_left(detector, tmp_path, monkeypatch):
    run = PackageRunner.__call__
    monkeypatch.setattr(
        PackageRunner, '__call__', lambda self, inputs: {k: v + (k == 'boxes') for k, v in run(self, inputs).items()}
    )
    with pytest.raises(VerificationError, match='the exported model differs'):
        export_torch(detector('one_stage'), tmp_path / 'model.pt2', IMAGES, attention='grid')
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r'must be a file that ends with \.pt2'):
        export_torch(detector('one_stage'), tmp_path / 'model.onnx', IMAGES)


@pytest.mark.slow
@pytest.mark.process
@needs_operators
def test_compiled(detector, tmp_path):
    if not (shutil.which('c++') or shutil.which('g++')):
        pytest.skip('a C++ compiler is not installed')
    report = export_torch(detector('one_stage'), tmp_path / 'model.pt2', IMAGES, compiled=True)
    assert len(report.lines) == 3
    run_without_mmdetection(tmp_path / 'model.pt2', 'torch._inductor.aoti_load_package')


@pytest.mark.slow
@pytest.mark.process
@needs_operators
def test_tool(detector, tmp_path):
    config, weights = tmp_path / 'config.py', tmp_path / 'weights.pth'
    small_config('joint').dump(config)
    torch.save(detector('joint').state_dict(), weights)
    tool = Path(__file__).resolve().parents[2] / 'tools' / 'deployment' / 'export_torch.py'
    result = run_script(tool, config, weights, tmp_path / 'model.pt2', '--shape', 96, 128, '--no-verify')
    assert result.returncode == 0 and 'written: ' in result.stdout, result.stderr
