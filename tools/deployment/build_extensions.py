#!/usr/bin/env python
"""Build the operators for ONNX Runtime and OpenVINO, where their headers are found.

    ONNXRUNTIME_INCLUDE_DIR=/usr/include/onnxruntime python tools/deployment/build_extensions.py

OpenVINO's headers are in its wheel. ONNX Runtime's are in no wheel: they are in its release archives, and in Debian's
package libonnxruntime-dev; the environment variable names the folder that holds onnxruntime_cxx_api.h. An older header
works with a newer runtime. Needs CMake (`pip install cmake`) and GCC or Clang, no torch.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADER = 'onnxruntime_cxx_api.h'


def find_cmake() -> str:
    beside = Path(sysconfig.get_path('scripts')) / 'cmake'
    found = str(beside) if beside.is_file() else shutil.which('cmake')
    if not found:
        raise SystemExit('error: CMake is not found: pip install cmake')
    return found


def find_openvino() -> Path:
    """Folder of OpenVINO's CMake files, None where it is not installed."""
    wish = os.environ.get('OPENVINO_DIR')
    if wish:
        return Path(wish)
    spec = importlib.util.find_spec('openvino')
    folder = Path(spec.origin).parent / 'cmake' if spec else None
    return folder if folder and folder.is_dir() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=ROOT / 'lite_detr_mmdet' / 'ops',
        help='folder for the libraries (beside the other operators, where they are found)',
    )
    parser.add_argument('--build-dir', type=Path, default=ROOT / 'build' / 'runtimes', help='folder to build in')
    args = parser.parse_args()
    headers = os.environ.get('ONNXRUNTIME_INCLUDE_DIR', '')
    if headers and not (Path(headers) / HEADER).is_file():
        raise SystemExit(f'error: ONNXRUNTIME_INCLUDE_DIR must hold {HEADER}, got {headers!r}')
    openvino = find_openvino()
    if not headers and openvino is None:
        raise SystemExit('error: neither ONNXRUNTIME_INCLUDE_DIR is set nor OpenVINO installed (pip install openvino)')
    cmake = find_cmake()
    configure = [cmake, '-S', ROOT / 'csrc' / 'runtimes', '-B', args.build_dir, f'-DONNXRUNTIME_INCLUDE_DIR={headers}']
    configure += [f'-DWITH_OPENVINO={"ON" if openvino else "OFF"}', f'-DOpenVINO_DIR={openvino or ""}']
    jobs = os.environ.get('MAX_JOBS', str(os.cpu_count()))
    for command in (configure, [cmake, '--build', args.build_dir, '--parallel', jobs]):
        if subprocess.run([str(part) for part in command], stdout=sys.stderr).returncode:
            raise SystemExit('error: the build failed, see above')
    for library in sorted(args.build_dir.glob('liblite_detr_*.so')) + sorted(args.build_dir.glob('*.dylib')):
        target = args.out_dir / library.name
        partial = target.with_name(f'.{target.name}.partial')
        shutil.copyfile(library, partial)
        os.replace(partial, target)
        print(f'written: {target}')
    if not headers:
        print('not built for ONNX Runtime: ONNXRUNTIME_INCLUDE_DIR is not set')
    if openvino is None:
        print('not built for OpenVINO: it is not installed')


if __name__ == '__main__':
    main()
