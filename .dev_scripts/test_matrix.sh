#!/usr/bin/env bash
# Test this package with several Pythons, torches and kinds of mmcv, each in a clean environment; print a table.
#   .dev_scripts/test_matrix.sh [ROW...]        (default: all rows; the rows are below)
# The wheel is built once for each torch, by the first row that needs it, and installed in every row with that torch. A
# row runs, against the installed package, a selection of the tests (see `selection`) and .dev_scripts/smoke_test.py: a
# training step, and detection with a checkpoint that all rows share, whose boxes must be those of the first row.
# PYTHON_3_10, PYTHON_3_11... name interpreters (default: python3.10, python3.11...), MAX_JOBS the number of compilers.
# A row whose interpreter or packages are not to be had says so. Wheels, the checkpoint, logs and results are left in
# build/matrix, environments with KEEP=1 alone.
set -uo pipefail
cd "$(dirname "$0")/.."

# name: Python, torch, packages of the OpenMMLab stack
declare -A rows=(
    [python3.10]="3.10 2.13.0 lite"
    [python3.11]="3.11 2.13.0 lite"
    [python3.12]="3.12 2.13.0 lite"
    [python3.13]="3.13 2.13.0 lite"
    [oldest-torch]="3.11 2.4.0 lite"
    [newest-torch]="3.11 2.14.1 lite"
    [onedl]="3.11 2.13.0 onedl"
    [mmcv-compiled]="3.11 2.13.0 compiled"
)
order=(python3.10 python3.11 python3.12 python3.13 oldest-torch newest-torch onedl mmcv-compiled)
# The operators' values and gradients against the plain form and the authors' outputs, how their library is loaded, and
# what the package mends in mmcv and mmengine. Left out: checks of arguments, fuzzing, torch.compile, the emulator of
# CUDA, and all that builds large detectors; those are the same for every row.
selection=(
    tests/ops/test_key_aware_deform_attn.py tests/ops/test_multi_scale_deform_attn.py tests/ops/test_extension.py
    tests/compat/test_mmcv_functions.py tests/compat/test_config_scope.py
    --deselect tests/ops/test_extension.py::test_package_without_library # reads the package's sources
)
root=$PWD
matrix=$root/build/matrix
mkdir -p "$matrix/results"
export PIP_DISABLE_PIP_VERSION_CHECK=1 MAX_JOBS=${MAX_JOBS:-$(nproc)}

# Packages of a row but this one; setup_env.sh makes the environments of OpenMMLab's.
make_environment() {
    local python=$1 torch=$2 stack=$3 venv=$4
    if [ "$stack" != onedl ]; then
        PYTHON=$python TORCH=torch==$torch MMCV=$stack .dev_scripts/setup_env.sh "$venv" none
        return
    fi
    # onedl-mmdetection requires imgaug, which does not load on numpy 2; this package stands in for it. So OneDL's
    # packages come without their requirements: those of OpenMMLab's do. Without torch in the environment of its build,
    # onedl-mmcv has no compiled operators.
    PYTHON=$python TORCH=torch==$torch .dev_scripts/setup_env.sh "$venv" none &&
        "$venv/bin/python" -m pip uninstall -q -y mmcv-lite mmdet mmengine &&
        "$venv/bin/python" -m pip install -q --no-compile --no-deps \
            onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmdetection==3.5.1
}

test_row() {
    local name=$1 python=$2 torch=$3 stack=$4 venv=$matrix/$1/venv source=$matrix/$1/source
    local wheels=$matrix/wheels/torch-$torch
    rm -rf "${matrix:?}/$name"
    mkdir -p "$source"
    make_environment "$python" "$torch" "$stack" "$venv" || return 3
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$source" 2>/dev/null
    if ! compgen -G "$wheels/*.whl" >/dev/null; then
        (cd "$source" && "$venv/bin/python" -m pip wheel -q --no-deps --no-build-isolation -w "$wheels.part" .) || return 3
        rm -rf "$wheels" && mv "$wheels.part" "$wheels"
    fi
    "$venv/bin/python" -m pip install -q --no-compile filelock packaging pyyaml "$wheels"/*.whl --no-deps || return 3
    rm -rf "$source/lite_detr_mmdet" # the tests shall find the installed package
    cd "$source" || return 3
    OMP_NUM_THREADS=1 "$venv/bin/python" -m pytest -q -m 'not slow' "${selection[@]}" || return 4
    mkdir -p "$matrix/reference"
    cd "$matrix/reference" || return 3
    OMP_NUM_THREADS=1 "$venv/bin/python" -W ignore "$root/.dev_scripts/smoke_test.py" --installed-in "$venv" \
        --compare-boxes boxes.npz || return 5
}

[ $# -gt 0 ] || set -- "${order[@]}"
for name in "$@"; do
    [ -n "${rows[$name]:-}" ] || { echo "no such row: $name; there are ${order[*]}" >&2; exit 1; }
done
for name in "$@"; do
    read -r version torch stack <<<"${rows[$name]}"
    variable=PYTHON_${version/./_}
    python=${!variable:-python$version}
    versions="$version | $torch | - | - | -"
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        status="not run: no $python"
    else
        log=$matrix/results/$name.log
        (test_row "$name" "$python" "$torch" "$stack") >"$log" 2>&1
        case $? in
            0) status="$(grep -oE '[0-9]+ passed.* in ' "$log" | sed 's/, [0-9]* warnings*//; s/ in $//'), $(grep -oE '(equal boxes|reference boxes)$' "$log")" ;;
            3) status="not installed, see $log" ;;
            4) status="tests fail, see $log" ;;
            *) status="training or detection fails, see $log" ;;
        esac
        versions=$("$matrix/$name/venv/bin/python" .dev_scripts/smoke_test.py --versions 2>/dev/null | tail -n 1 | grep '|' || echo "$versions")
        [ -n "${KEEP:-}" ] || rm -rf "${matrix:?}/$name"
    fi
    echo "| $name | $versions | $status |" | tee "$matrix/results/$name.txt"
done
echo
echo '| Row | Python | torch | mmcv | mmengine | mmdet | Result |'
echo '| --- | --- | --- | --- | --- | --- | --- |'
for name in "${order[@]}"; do
    if [ -f "$matrix/results/$name.txt" ]; then cat "$matrix/results/$name.txt"; fi
done
