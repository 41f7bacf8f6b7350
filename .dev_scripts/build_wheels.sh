#!/usr/bin/env bash
# Build the wheel for the torch that PY has, and call its operators in clean environments of other Pythons.
#   .dev_scripts/build_wheels.sh [FOLDER]   (default: dist)
# PY names the interpreter that builds (default: .venv/bin/python), PYTHONS those that try the wheel (default: none).
# The library has no Python symbols, so the wheel is tagged cp310-abi3: one for every Python from 3.10 on. It is bound
# to torch's C++ interface, so it serves the minor version of torch that it was compiled for; FOLDER keeps one folder
# for each.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PY:-.venv/bin/python}
torch=$("$python" -c 'import torch; print(torch.__version__)')
folder=$(realpath -m "${1:-dist}")/torch-${torch/+/-}
rm -rf build
"$python" -m pip wheel --no-deps --no-build-isolation --no-cache-dir -w "$folder" .
wheel=$(ls -t "$folder"/lite_detr_mmdet-*-cp310-abi3-*.whl | head -1)
echo "built $wheel for torch $torch"
for other in ${PYTHONS:-}; do
    environment=$(mktemp -d)
    trap 'rm -rf "$environment"' EXIT
    "$other" -m venv "$environment"
    "$environment/bin/python" -m pip install -q "torch==${torch%%+*}" numpy
    "$environment/bin/python" -m pip install -q --no-deps "$wheel"
    (cd "$environment" && LITE_DETR_OPS_ONLY=1 bin/python - <<'PYTHON'
import sys

import torch

from lite_detr_mmdet.ops import key_aware_deform_attn, multi_scale_deform_attn

shapes, starts = torch.tensor([[3, 4], [2, 2]]), torch.tensor([0, 12])
query, value = torch.randn(1, 5, 2, 8), torch.randn(1, 16, 2, 8, requires_grad=True)
places = (shapes, starts, torch.rand(1, 5, 2, 2), torch.randn(1, 5, 2, 2, 3, 2))
weights = torch.rand(1, 5, 2, 2, 3)
for call in (
    lambda backend: key_aware_deform_attn(query, value, *places, backend=backend),
    lambda backend: multi_scale_deform_attn(value, *places, weights, backend=backend),
):
    output = call('fused')
    output.sum().backward()
    assert (output - call('reference')).abs().max() < 1e-5
print(f'Python {sys.version.split()[0]}, torch {torch.__version__}: both operators compute what they should')
PYTHON
    )
    rm -rf "$environment"
done
