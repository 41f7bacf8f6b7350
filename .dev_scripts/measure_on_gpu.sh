#!/usr/bin/env bash
# Everything that needs a GPU, in stages of less than ten minutes that can be repeated: docs/gpu_evidence.md.
#   .dev_scripts/measure_on_gpu.sh pack                       with a package index, without a GPU: wheels and sources
#   .dev_scripts/measure_on_gpu.sh build|test|sanitize        the operator; needs torch, nvcc, ninja, pytest
#   .dev_scripts/measure_on_gpu.sh limits|kernels|kernels-cold
#   .dev_scripts/measure_on_gpu.sh mmcv                       mmcv with its operators, for the stages below
#   .dev_scripts/measure_on_gpu.sh models DTYPE BATCH_SIZE    e.g. models bfloat16 16
#   .dev_scripts/measure_on_gpu.sh train DATASET              shapes or bccd; trains on in the background, call it again
#   .dev_scripts/measure_on_gpu.sh stop                       end what `train` left running
# Results go to RESULTS (benchmarks/results/gpu), and with a log, and with what `build` and `mmcv` made, to the folder OUT
# where that is set. PYTHON names the interpreter (python3), WORK a folder for what is built (build/gpu), LIMIT the
# seconds of a call (540), JOBS the compilers (all cores), PARALLEL the trainings at a time (8), TRAIN_LIMIT the seconds
# of all trainings (1500), BCCD_ROOT the data, COMPILE a mode of torch.compile for `models`. MPS=1 shares the GPU between
# trainings by NVIDIA's multi-process service.
set -euo pipefail
cd "$(dirname "$0")/.."

stage=${1:?usage: measure_on_gpu.sh STAGE, see the beginning of this file}
python=${PYTHON:-python3}
limit=${LIMIT:-540}
jobs=${JOBS:-$(nproc)}
work=${WORK:-$PWD/build/gpu}
results=${RESULTS:-benchmarks/results/gpu}
mmcv=mmcv-2.1.0
mkdir -p "$work/wheels" "$work/logs" "$results"
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD:$work/site${PYTHONPATH:+:$PYTHONPATH}
export MAX_JOBS=$jobs TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0} FORCE_CUDA=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONWARNINGS='ignore:pkg_resources is deprecated'

# What took long to build, for the next machine of the same kind.
keep() { if [ -n "${OUT:-}" ]; then cp "$@" "$OUT"; fi; }
run() { timeout --kill-after=20 "$limit" "$@"; }
# The operator alone: neither mmcv nor mmdet need be there.
run_op() { LITE_DETR_OPS_ONLY=1 run "$@"; }

# mmcv, mmdet and what they need, from the wheels that `pack` and `mmcv` left; without wheels, they are there already.
install_wheels() {
    local mark=$work/site/installed
    if [ -e "$mark" ] && [ -z "$(find "$work/wheels" -name '*.whl' -newer "$mark")" ]; then return; fi
    compgen -G "$work/wheels/*.whl" >/dev/null || return 0
    "$python" -m pip install -q --no-index --no-deps --upgrade --target "$work/site" "$work"/wheels/*.whl
    touch "$mark"
}

# Without the fused operator the figures would be those of plain PyTorch.
check_op() {
    "$python" - <<'PYTHON'
import torch
from lite_detr_mmdet.ops.extension import explain_missing, has_kernel
if torch.cuda.is_available() and not has_kernel('cuda'):
    raise SystemExit(f"{explain_missing('cuda')}, or run the stage build")
PYTHON
}

# torch's headers ask for those of libraries that a toolkit may lack, but torch's own packages bring.
add_headers() {
    CPATH=${CPATH:+$CPATH:}$("$python" - <<'PYTHON'
import pathlib, torch
from torch.utils.cpp_extension import CUDA_HOME
packages = pathlib.Path(torch.__file__).parents[1] / 'nvidia'
folders = [*packages.glob('cu*/include'), *packages.glob('*/include')]
print('' if (pathlib.Path(CUDA_HOME) / 'include/cusparse.h').exists() else ':'.join(map(str, folders)))
PYTHON
)
    if [ -n "$CPATH" ]; then export CPATH; else unset CPATH; fi
}

pack() {
    local platforms=() number
    for number in 17 24 27 28 31 34 35; do platforms+=(--platform "manylinux_2_${number}_x86_64"); done
    # What a Python with torch, numpy, scipy, matplotlib, OpenCV and pytest lacks; setuptools with pkg_resources.
    "$python" -m pip download -q --no-deps --only-binary=:all: --implementation cp --python-version 3.12 \
        "${platforms[@]}" --platform manylinux2014_x86_64 -c requirements/constraints.txt -d "$work/wheels" \
        mmengine mmdet pycocotools addict termcolor terminaltables yapf platformdirs shapely 'setuptools>=77.0.3,<81' \
        'deformops>=3,<4'
    [ -e "$work/$mmcv.tar.gz" ] ||
        "$python" -m pip download -q --no-deps --no-binary :all: --no-build-isolation -d "$work" "mmcv==${mmcv#*-}"
    du -sh "$work/wheels" "$work/$mmcv.tar.gz"
}

build() {
    run "$python" setup.py build_ext --inplace
    LITE_DETR_OPS_ONLY=1 "$python" -m lite_detr_mmdet.ops
    keep lite_detr_mmdet/ops/_C*.so
    if [ -e "$work/$mmcv.tar.gz" ]; then
        add_headers
        run "$python" .dev_scripts/build_mmcv_op.py "$work/$mmcv.tar.gz" --out "$work"
    fi
}

kernels() {
    local peer=$work/mmcv_ms_deform_attn/mmcv_ms_deform_attn.so extra=()
    install_wheels # deformops is a peer
    if [ -e "$peer" ]; then extra+=(--mmcv-library "$peer"); fi
    if [ -e "$results/limits.json" ]; then extra+=(--limits "$results/limits.json"); fi
    run_op "$python" benchmarks/key_aware_deform_attn.py --device cuda --passes forward backward --offsets init \
        --dtypes float32 float16 bfloat16 --repeats 20 "${extra[@]}" --out "$results/$stage" "$@"
}

build_mmcv() {
    install_wheels
    [ -d "$work/$mmcv" ] || tar -xzf "$work/$mmcv.tar.gz" -C "$work"
    add_headers
    # ninja goes on where an earlier call stopped
    (cd "$work/$mmcv" && MMCV_WITH_OPS=1 run "$python" setup.py -q bdist_wheel -d "$work/wheels")
    keep "$work/wheels/mmcv"-*.whl
    install_wheels
    "$python" -c 'import lite_detr_mmdet, mmcv._ext'
}

models() {
    local dtype=${1:?DTYPE} batch=${2:?BATCH_SIZE} family pair extra=()
    install_wheels
    check_op
    if [ -n "${COMPILE:-}" ]; then extra+=(--compile "$COMPILE"); fi
    for family in dino deformable_detr h_detr; do
        case $family in
            dino) pair="mmdet::dino/dino-4scale_r50_8xb2-36e_coco.py
                configs/lite_dino/lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py" ;;
            deformable_detr) pair="
                configs/deformable_detr/deformable-detr-refine-twostage-4scale_r50_16xb2-50e_coco.py
                configs/lite_deformable_detr/lite-deformable-detr_h3l1-2p1x3_r50_16xb2-50e_coco.py" ;;
            h_detr) pair="configs/h_detr/h-detr_r50_8xb2-36e_coco.py
                configs/lite_h_detr/lite-h-detr_h3l1-2p1x3_r50_8xb2-36e_coco.py" ;;
        esac
        # shellcheck disable=SC2086
        limit=$((limit / 3)) run "$python" benchmarks/detectors.py $pair --device cuda --dtype "$dtype" \
            --batch-size "$batch" --parts encoder detector training --repeat 10 "${extra[@]}" \
            --out "$results/models_${family}_${dtype}_b$batch${COMPILE:+_$COMPILE}" ||
            echo "$family: exit status $?"
    done
}

train() {
    local dataset=${1:?shapes or bccd} root pid=$work/train_$1.pid end=$((SECONDS + limit))
    local out=$results/accuracy_$dataset
    install_wheels
    check_op
    if [ "$dataset" = shapes ]; then
        root=data/small_shapes
        run "$python" tools/dataset_converters/generate_shapes.py "$root" --num-train 20000 --num-val 1000 --size 256 \
            --max-objects 24 --shares 0.75 0.2 0.05 --smallest 8 --jobs "$jobs" >"$work/logs/data.log" 2>&1
    else
        root=${BCCD_ROOT:-data/bccd}
    fi
    if ! { [ -e "$pid" ] && kill -0 "$(cat "$pid")" 2>/dev/null; }; then
        if [ "${MPS:-0}" = 1 ]; then
            export CUDA_MPS_PIPE_DIRECTORY=$work/mps CUDA_MPS_LOG_DIRECTORY=$work/mps
            mkdir -p "$work/mps"
            nvidia-cuda-mps-control -d || true # is there already
        fi
        setsid nohup "$python" benchmarks/accuracy.py run "$dataset" --data-root "$root" --out "$out" \
            --parallel "${PARALLEL:-8}" --time-limit "${TRAIN_LIMIT:-1500}" \
            >>"$work/logs/accuracy_$dataset.log" 2>&1 </dev/null &
        echo $! >"$pid"
    fi
    while kill -0 "$(cat "$pid")" 2>/dev/null && [ $SECONDS -lt $end ]; do sleep 2; done
    tail -n 40 "$work/logs/accuracy_$dataset.log"
    if kill -0 "$(cat "$pid")" 2>/dev/null; then echo "trains on: call this again"; fi
    find work_dirs/accuracy -name '*.log' -o -name log.txt | tar -czf "$results/accuracy_${dataset}_logs.tar.gz" -T -
}

stop() {
    local pid
    for pid in "$work"/train_*.pid; do
        if [ -e "$pid" ]; then kill "$(cat "$pid")" 2>/dev/null || true; fi
    done
    if [ -e "$work/mps" ]; then
        echo quit | CUDA_MPS_PIPE_DIRECTORY=$work/mps nvidia-cuda-mps-control || true
    fi
}

run_stage() {
    case $stage in
        build) build ;;
        test) run_op "$python" -m pytest -q --noconftest tests/ops/test_cuda.py ;;
        sanitize) run .dev_scripts/sanitize_cuda_op.sh "$python" ;;
        limits) run_op "$python" benchmarks/gpu_limits.py --out "$results/limits" ;;
        kernels) kernels --batch-sizes 1 2 16 ;;
        kernels-cold) kernels --batch-sizes 1 --flush ;;
        mmcv) build_mmcv ;;
        pack | models | train | stop) "$@" ;;
        *) echo "no such stage: $stage" && exit 2 ;;
    esac
}

touch "$work/begin"
set +e # a pipeline, not a condition: within one, the first error would not end the stage
(
    set -e
    run_stage "$@"
) 2>&1 | tee "$work/logs/$stage.log"
status=$?
echo "$stage: exit status $status after $SECONDS s"
if [ -n "${OUT:-}" ]; then
    keep "$work/logs/$stage.log"
    find "$results" -type f -newer "$work/begin" -exec cp {} "$OUT" \;
fi
exit $status
