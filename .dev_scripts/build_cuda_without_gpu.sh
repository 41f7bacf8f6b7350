#!/usr/bin/env bash
# Build the whole CUDA extension on a machine that needs no GPU, and look whether it loads and is registered.
#   .dev_scripts/build_cuda_without_gpu.sh FOLDER        FOLDER: for a new virtual environment, about 5 GB; may be deleted
# Needs nvcc of the same major version as the CUDA of torch and a C++ compiler. TORCH names the torch (default
# torch==2.11.0, built for CUDA 13.0), TORCH_CUDA_ARCH_LIST the GPUs (default '8.0;9.0'), PYTHON the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:?usage: build_cuda_without_gpu.sh FOLDER}
torch=${TORCH:-torch==2.11.0}
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-8.0;9.0}
export MAX_JOBS=${MAX_JOBS:-2} FORCE_CUDA=1 PIP_DISABLE_PIP_VERSION_CHECK=1
nvcc=$(command -v nvcc) || { echo "nvcc is not on the PATH" >&2; exit 1; }
# nvcc may be a link or a script: it says itself where its toolkit is.
CUDA_HOME=${CUDA_HOME:-$("$nvcc" --dryrun -c -x cu /dev/null -o /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')}
CUDA_HOME=$(realpath "$CUDA_HOME")
export CUDA_HOME

[ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
python=$folder/bin/python
"$python" -c 'import torch' 2>/dev/null || "$python" -m pip install --quiet --no-cache-dir "$torch"
"$python" -m pip install --quiet numpy ninja wheel 'setuptools>=77.0.3,<81'
# Without its dependencies: the operators need torch alone.
"$python" -m pip install --no-build-isolation --no-deps --force-reinstall --verbose . | grep -E '^ *(lite_detr|torch:|CUDA|TORCH|MAX_JOBS|DEBUG|.*error|Successfully)'

cd "$folder"  # away from the source tree, which would be imported in place of what is installed
export LITE_DETR_OPS_ONLY=1  # the operators need neither mmcv nor mmdet
bin/python - <<'PYTHON'
import torch

from lite_detr_mmdet.ops import key_aware_deform_attn

for name in ('key_aware_deform_attn', 'multi_scale_deform_attn'):
    for name in (name, f'{name}_backward'):
        for device in ('CPU', 'CUDA'):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(f'lite_detr::{name}', device), (name, device)
shapes, starts = torch.tensor([[5, 6], [3, 4]]), torch.tensor([0, 30])
arguments = torch.randn(2, 7, 2, 32), torch.randn(2, 42, 2, 32), shapes, starts
locations = torch.rand(2, 7, 2, 2), torch.randn(2, 7, 2, 2, 4, 2)
fused = key_aware_deform_attn(*arguments, *locations, backend='fused')
torch.testing.assert_close(fused, key_aware_deform_attn(*arguments, *locations, backend='reference'))
print(f'torch {torch.__version__}: registered for CPU and CUDA, and the CPU call is right')
PYTHON
