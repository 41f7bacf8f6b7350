#!/usr/bin/env bash
# Test this package with several Pythons, torches and kinds of mmcv, each in a clean environment; print a table.
#   .dev_scripts/test_matrix.sh [ROW...]        (default: all rows; the rows are below)
# A row takes minutes: it installs, compiles the operator, runs the operator's tests and one training step with detection.
# PYTHON_3_10, PYTHON_3_11... name interpreters (default: python3.10, python3.11...). A row whose interpreter or packages
# are not to be had says so. Environments and logs are left in build/matrix; results in build/matrix/results.
set -uo pipefail
cd "$(dirname "$0")/.."

# name: Python, torch, packages of the OpenMMLab stack
declare -A rows=(
    [python3.10]="3.10 torch==2.13.0 lite"
    [python3.11]="3.11 torch==2.13.0 lite"
    [python3.12]="3.12 torch==2.13.0 lite"
    [python3.13]="3.13 torch==2.13.0 lite"
    [oldest-torch]="3.11 torch==2.4.0 lite"
    [mmcv-compiled]="3.11 torch==2.13.0 compiled"
    [onedl]="3.11 torch==2.13.0 onedl"
)
order=(python3.10 python3.11 python3.12 python3.13 oldest-torch mmcv-compiled onedl)
results=build/matrix/results
mkdir -p "$results"
root=$PWD

test_row() {
    local python=$1 torch=$2 stack=$3 venv=$4
    if [ "$stack" = onedl ]; then
        "$python" -m venv "$venv"
        # Without torch in the build's environment onedl-mmcv comes without compiled operators, as mmcv-lite does.
        "$venv/bin/python" -m pip install -q --no-compile "$torch" 'setuptools>=77.0.3,<81' wheel ninja numpy || return 3
        "$venv/bin/python" -m pip install -q --no-compile onedl-mmengine onedl-mmdetection onedl-mmcv filelock packaging \
            pyyaml -r requirements/tests.txt || return 3
        "$venv/bin/python" -m pip install -q --no-build-isolation --no-deps -e . || return 3
    else
        PYTHON=$python TORCH=$torch MMCV=$stack .dev_scripts/setup_env.sh "$venv" || return 3
    fi
    OMP_NUM_THREADS=1 "$venv/bin/python" -m pytest -q -m 'not slow' tests/ops || return 4
    OMP_NUM_THREADS=1 "$venv/bin/python" -m pytest -q tests/compat tests/models/detectors -k 'widths or lite_dino or mmcv' || return 5
}

[ $# -gt 0 ] || set -- "${order[@]}"
for name in "$@"; do
    [ -n "${rows[$name]:-}" ] || { echo "no such row: $name; there are ${order[*]}" >&2; exit 1; }
    read -r version torch stack <<<"${rows[$name]}"
    variable=PYTHON_${version/./_}
    python=${!variable:-python$version}
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        status="not run: no $python"
    else
        venv=$root/build/matrix/$name
        rm -rf "$venv"
        test_row "$python" "$torch" "$stack" "$venv" >"$results/$name.log" 2>&1
        case $? in
            0) status=passed ;;
            3) status="not installed, see $results/$name.log" ;;
            4) status="operator's tests fail, see $results/$name.log" ;;
            *) status="training fails, see $results/$name.log" ;;
        esac
        versions=$("$venv/bin/python" - <<'PYTHON' 2>/dev/null || true
import platform
from importlib import metadata

def version(*names):
    for name in names:
        try:
            return f'{name} {metadata.version(name)}'
        except metadata.PackageNotFoundError:
            pass
    return 'missing'

print(' | '.join([platform.python_version(), version('torch'), version('mmcv', 'mmcv-lite', 'onedl-mmcv'),
                  version('mmengine', 'onedl-mmengine'), version('mmdet', 'onedl-mmdetection')]))
PYTHON
)
    fi
    echo "| $name | ${versions:-$version | $torch | - | - | -} | $status |" | tee "$results/$name.txt"
    unset versions
done
echo
echo '| Row | Python | torch | mmcv | mmengine | mmdet | Result |'
echo '| --- | --- | --- | --- | --- | --- | --- |'
cat "$results"/*.txt
