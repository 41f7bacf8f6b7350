#!/usr/bin/env bash
# Make a virtual environment with pinned dependencies and this package (editable), its operator compiled.
#   .dev_scripts/setup_env.sh [FOLDER [none]]        (default: .venv; none: without this package)
# PYTHON names the interpreter (>= 3.10), MAX_JOBS the number of compilers that run at once, TORCH another torch than
# the pinned one, e.g. TORCH='torch==2.11.0'. mmcv comes without compiled operators (mmcv-lite): this package needs none.
# MMCV=compiled compiles them, about 7 minutes on 2 cores, once for each torch, and keeps the wheel in
# LITE_DETR_WHEEL_CACHE (default: ~/.cache/lite_detr_mmdet/wheels). A full mmcv that the environment has is kept.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${1:-.venv}
python=${PYTHON:-python3}
mmcv_version=2.1.0
export MAX_JOBS=${MAX_JOBS:-$(nproc)}
export PIP_DISABLE_PIP_VERSION_CHECK=1

"$python" - <<'PYTHON'
import sys
if sys.version_info < (3, 10):
    sys.exit(f'Python >= 3.10 is needed, {sys.executable} is {sys.version.split()[0]}: set PYTHON to a newer one')
PYTHON
SECONDS=0
stage() { echo "== [${SECONDS}s] $*"; }
pip() { "$python" -m pip --quiet "$@"; }
# Bytecode is compiled when a module is first imported: most of torch never is.
install() { pip install --no-compile "$@" -c requirements/constraints.txt; }

stage "an environment in $venv: $("$python" --version), $(nproc) cores"
"$python" -m venv "$venv"
python=$venv/bin/python

stage "torch and what compiling needs"
if [ -n "${TORCH:-}" ]; then pip install --no-compile "$TORCH"; fi
sed "${TORCH:+/^torch/d}" requirements/build.txt >"$venv/build.txt"
install -r "$venv/build.txt"

operator=
if [ "${2:-}" != none ]; then
    stage "compiling the operator while the rest is installed, log in $venv/operator.log"
    pip install --no-build-isolation --no-deps -e . >"$venv/operator.log" 2>&1 &
    operator=$!
fi

if [ "${MMCV:-lite}" = compiled ] && ! "$python" -c 'import mmcv._ext' 2>"$venv/mmcv_import.log"; then
    # The wheel fits one torch, one Python and one kind of machine; its own name says only the last two.
    key=$("$python" -c 'import platform, sys, torch
print(f"mmcv-{sys.argv[1]}-torch-{torch.__version__}-cp{sys.version_info[0]}{sys.version_info[1]}-{platform.machine()}")' \
        "$mmcv_version")
    wheels=${LITE_DETR_WHEEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lite_detr_mmdet/wheels}/$key
    if ! compgen -G "$wheels/mmcv-*.whl" >/dev/null; then
        stage "compiling mmcv $mmcv_version with its operators (about 7 minutes on 2 cores)"
        install psutil
        partial=$(mktemp -d)
        # pip's own cache may hold an mmcv without operators or for another torch: its key knows neither.
        MMCV_WITH_OPS=1 pip wheel --no-cache-dir --no-deps --no-build-isolation -w "$partial" "mmcv==$mmcv_version"
        mkdir -p "$wheels"
        mv "$partial"/mmcv-*.whl "$wheels/"
        rmdir "$partial"
    fi
    stage "installing mmcv from $wheels"
    install "$wheels"/mmcv-*.whl
fi

stage "mmdet and the other dependencies"
mmcv_lite=mmcv-lite==$mmcv_version
if "$python" -c 'from importlib.metadata import version; version("mmcv")' 2>"$venv/mmcv_import.log"; then
    mmcv_lite= # both have the module mmcv: mmcv-lite would overwrite it
fi
install -r requirements/runtime.txt -r requirements/tests.txt $mmcv_lite
if ! "$python" -c 'import cv2' 2>"$venv/cv2_import.log"; then
    tail -n 1 "$venv/cv2_import.log"
    version=$("$python" -c 'from importlib.metadata import version; print(version("opencv-python"))')
    stage "OpenCV needs graphics libraries that this machine lacks: installing opencv-python-headless $version instead"
    pip uninstall --yes opencv-python
    pip install --no-compile --force-reinstall --no-deps "opencv-python-headless==$version"
fi
if [ "${MMCV:-lite}" = compiled ]; then "$python" -c 'import mmcv._ext'; fi

if [ -n "$operator" ]; then
    stage "waiting for the operator"
    if ! wait "$operator"; then
        tail -n 30 "$venv/operator.log" >&2
        exit 1
    fi
    "$python" -W ignore -c 'import lite_detr_mmdet; print("lite_detr_mmdet", lite_detr_mmdet.__version__, "is ready")'
fi
stage "done"
