#!/usr/bin/env bash
# Compile the CPU operator of an earlier commit under another namespace, to compare both in one process:
#   .dev_scripts/build_earlier_op.sh COMMIT LIBRARY.so
#   python benchmarks/key_aware_deform_attn.py --forms fused earlier --earlier-library LIBRARY.so
# PY names the interpreter whose torch is used (default: .venv/bin/python), CXX the compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
commit=$1
library=$(realpath -m "$2")
python=${PY:-.venv/bin/python}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
git archive "$commit" csrc | tar -x -C "$folder"
rm -rf "$folder/csrc/cuda"
grep -rl lite_detr "$folder/csrc" | xargs sed -i 's/\blite_detr\b/lite_detr_base/g'
flags=$("$python" -c '
import torch
from torch.utils.cpp_extension import include_paths, library_paths
standard = "c++20" if torch.__version__ >= (2, 12) else "c++17"
print(*[f"-I{path}" for path in include_paths()], *[f"-L{path}" for path in library_paths()], f"-std={standard}",
      f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}")')
mkdir -p "$(dirname "$library")"
find "$folder/csrc" -name '*.cpp' | xargs -P "${MAX_JOBS:-2}" -I '{}' sh -c \
    "${CXX:-g++} -O3 -g0 -DNDEBUG -fPIC -fopenmp -w $flags -c '{}' -o '{}'.o"
# shellcheck disable=SC2046,SC2086
"${CXX:-g++}" -shared -o "$library" $(find "$folder/csrc" -name '*.o') $flags -ltorch -ltorch_cpu -lc10
echo "compiled the operator of $commit: $library"
