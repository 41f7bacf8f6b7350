"""What setup.py refuses to build, and the remedy that it names."""

import importlib.util
import sys
from pathlib import Path

import pytest
import setuptools
import torch

SETUP = Path(__file__).resolve().parent.parent / 'setup.py'


@pytest.fixture
def setup(monkeypatch):
    """setup.py as a module; nothing is built."""
    monkeypatch.setattr(setuptools, 'setup', lambda **options: None)
    monkeypatch.setattr('sys.argv', ['setup.py', 'egg_info'])
    for name in ('CXX', 'FORCE_CUDA', 'TORCH_CUDA_ARCH_LIST', 'LITE_DETR_WITHOUT_OPS'):
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location('setup_of_the_package', SETUP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr('sys.argv', ['setup.py', 'bdist_wheel'])
    return module


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Put a compiler into CXX that says who it is."""

    def make(version: str) -> str:
        path = tmp_path / 'compiler'
        path.write_text(f'#!/bin/sh\necho "{version}"\n')
        path.chmod(0o755)
        monkeypatch.setenv('CXX', str(path))
        return str(path)

    return make


def test_no_compiler(setup, monkeypatch):
    monkeypatch.setenv('CXX', '/no/such/compiler')
    with pytest.raises(SystemExit) as error:
        setup.get_ops_options()
    for part in ("C++ compiler '/no/such/compiler' cannot be run", 'apt-get install g++', 'LITE_DETR_WITHOUT_OPS=1'):
        assert part in str(error.value)


def test_clang_beside_the_openmp_of_gnu(setup, monkeypatch, compiler):
    path = compiler('Debian clang version 14.0.6')
    monkeypatch.setattr(torch.__config__, 'parallel_info', lambda: 'ATen parallel backend: OpenMP')
    monkeypatch.setattr(setup.glob, 'glob', lambda pattern: ['libtorch_cpu.so'])
    monkeypatch.setattr(setup.ctypes, 'CDLL', lambda path: object())  # a library without LLVM's functions
    with pytest.raises(SystemExit, match=r"brings GNU's: the library would not load. Set CXX to GCC, e.g. `CXX=g\+\+"):
        setup.get_openmp_flags(torch, *setup.get_compiler())
    compiler('g++ (Debian 12.2.0-14) 12.2.0')
    assert setup.get_openmp_flags(torch, *setup.get_compiler()) == ['-fopenmp']
    assert setup.get_compiler() == ([path], False)


def test_windows_installs_the_plain_form_and_says_so(setup, monkeypatch, capsys):
    monkeypatch.setattr(setup.platform, 'system', lambda: 'Windows')
    assert setup.get_ops_options() == {}
    output = capsys.readouterr().out
    assert "Microsoft's compiler lacks" in output and 'plain PyTorch' in output and 'WSL' in output


def test_no_torch(setup, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    with pytest.raises(SystemExit, match=r'install torch>=2.4 first, e.g. `pip install torch`, or set LITE_'):
        setup.import_torch()


def test_cuda_torch_without_a_gpu(setup, monkeypatch):
    """torch's own build ends in an IndexError there."""
    from torch.utils import cpp_extension

    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(cpp_extension, 'CUDA_HOME', '/usr/local/cuda')
    monkeypatch.setattr(setup.os.path, 'isfile', lambda path: True)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert 'TORCH_CUDA_ARCH_LIST does not say for which to compile' in setup.get_cuda_reason(torch)
    monkeypatch.setenv('FORCE_CUDA', '1')
    with pytest.raises(SystemExit, match=r'cannot be built: no GPU is visible, and TORCH_CUDA_ARCH_LIST'):
        setup.get_ops_options()
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '9.0')
    assert setup.get_cuda_reason(torch) is None
    monkeypatch.setattr(torch.version, 'cuda', None)
    assert 'is not a CUDA build' in setup.get_cuda_reason(torch)


def test_flag_that_is_no_flag(setup, monkeypatch):
    monkeypatch.setenv('LITE_DETR_WITHOUT_OPS', 'maybe')
    with pytest.raises(SystemExit, match="LITE_DETR_WITHOUT_OPS must be 1 or 0, got 'maybe'"):
        setup.get_ops_options()
