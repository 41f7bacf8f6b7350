#!/usr/bin/env bash
# Run the CUDA kernels under compute-sanitizer: accesses out of bounds, races in shared memory, reads of memory that
# nothing has written, barriers that not all threads reach. Needs a GPU, compute-sanitizer (CUDA toolkit) and the
# package installed with CUDA.
#   .dev_scripts/sanitize_cuda_op.sh [PYTHON]        (default: python)
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python}
command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not on the PATH (CUDA toolkit)" >&2; exit 1; }
# Each tensor its own allocation: with torch's cache an access beyond a tensor would still lie inside of a block.
export PYTORCH_NO_CUDA_MEMORY_CACHING=1
export LITE_DETR_OPS_ONLY=1  # mmcv and mmdet need not be there
for tool in memcheck racecheck initcheck synccheck; do
    echo "== $tool"
    # Only our kernels: those of torch are not what this looks for.
    compute-sanitizer --tool "$tool" --error-exitcode 1 --kernel-regex kernel_substring=lite_detr \
        "$python" .dev_scripts/call_cuda_op.py
done
