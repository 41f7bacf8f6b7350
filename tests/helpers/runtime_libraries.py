"""The operators' libraries for ONNX Runtime and OpenVINO, built once for all tests, and a node alone as a model."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Optional

import pytest
from filelock import FileLock

from lite_detr_mmdet.export.runners import find_runtime_library

ROOT = Path(__file__).resolve().parents[2]
BUILD_DIR = ROOT / 'build' / 'runtimes'  # where `make` looks, too: a second run has nothing to compile
HEADERS = Path('/usr/include/onnxruntime')  # Debian's libonnxruntime-dev


def build_runtime_library(runtime: str, folder: Path) -> Path:
    """The library that is there, or one that is built in ``folder``; skips where that needs what is not installed."""
    found = find_runtime_library(runtime)
    if found is not None:
        return found
    if shutil.which('cmake') is None or not (shutil.which('c++') or shutil.which('g++')):
        pytest.skip('CMake or a C++ compiler is not installed')
    environment = dict(os.environ)
    if (HEADERS / 'onnxruntime_cxx_api.h').is_file():
        environment.setdefault('ONNXRUNTIME_INCLUDE_DIR', str(HEADERS))
    if runtime == 'onnxruntime' and not environment.get('ONNXRUNTIME_INCLUDE_DIR'):
        pytest.skip("ONNX Runtime's headers are not installed: set ONNXRUNTIME_INCLUDE_DIR")
    command = [sys.executable, ROOT / 'tools' / 'deployment' / 'build_extensions.py', '--out-dir', folder]
    BUILD_DIR.parent.mkdir(exist_ok=True)
    with FileLock(f'{BUILD_DIR}.lock'):
        built = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert built.returncode == 0, built.stderr[-3000:]
    (library,) = folder.glob(f'*lite_detr_{runtime}.*')
    return library


def node_model(node: str, inputs: Dict[str, Any], shapes: Optional[Dict[str, tuple]] = None) -> bytes:
    """An ONNX model of one node: inputs (numpy arrays) by name, ``shapes`` where others are declared."""
    import onnx
    from onnx import helper

    shapes = shapes or {}
    declared = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), shapes.get(name, [None] * array.ndim)
        )
        for name, array in inputs.items()
    ]
    output = helper.make_tensor_value_info(
        'output', helper.np_dtype_to_tensor_dtype(inputs['value'].dtype), [None] * 3
    )
    graph = helper.make_graph(
        [helper.make_node(node, list(inputs), ['output'], domain='lite_detr')], 'node', declared, [output]
    )
    imports = [helper.make_opsetid('', 20), helper.make_opsetid('lite_detr', 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=onnx.IR_VERSION).SerializeToString()
