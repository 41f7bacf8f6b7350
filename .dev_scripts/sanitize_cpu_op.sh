#!/usr/bin/env bash
# Run the tests of the compiled CPU operator under AddressSanitizer and UndefinedBehaviorSanitizer.
#   .dev_scripts/sanitize_cpu_op.sh [ARGUMENTS OF PYTEST]
# PY names the interpreter (default: .venv/bin/python), CXX the compiler, ISAS the instruction sets to run
# (default: "default avx2 avx512", of which the processor takes what it has). Nothing of the installed package is
# changed: the operator is compiled into a copy. A read or write outside of a tensor, or undefined behaviour, ends the
# run with a report and a non-zero status.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PY:-.venv/bin/python}
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
compiler=${CXX:-g++}
copy=${SANITIZE_DIR:-$(mktemp -d)}  # a folder that is given is kept, with the objects compiled so far
[ -n "${SANITIZE_DIR:-}" ] || trap 'rm -rf "$copy"' EXIT
rm -rf "$copy/lite_detr_mmdet" "$copy/tests"
mkdir -p "$copy/lite_detr_mmdet" "$copy/objects"
cp -r lite_detr_mmdet/*.py lite_detr_mmdet/ops tests pyproject.toml "$copy" 2>/dev/null
mv "$copy"/*.py "$copy/ops" "$copy/lite_detr_mmdet/"
rm -f "$copy"/lite_detr_mmdet/ops/_C*.so

echo "== compiling"
flags=$("$python" - <<'PYTHON'
import torch
from torch.utils.cpp_extension import include_paths, library_paths
flags = [f'-I{path}' for path in include_paths()] + [f'-L{path}' for path in library_paths()]
print(*flags, f'-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}')
PYTHON
)
standard=$("$python" -c 'import torch; print("c++20" if torch.__version__ >= (2, 12) else "c++17")')
sanitizers="-fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all -fno-omit-frame-pointer"
# -O1 keeps the run short; float-divide-by-zero and float-cast-overflow are not part of `undefined`
# shellcheck disable=SC2086
ls csrc/*.cpp csrc/core/*.cpp csrc/cpu/*.cpp | xargs -P "${MAX_JOBS:-$(nproc)}" -I '{}' sh -c \
    "[ -f '$copy/objects/'\$(basename '{}').o ] || '$compiler' -O1 -g1 -fPIC -fopenmp -std=$standard -w $sanitizers $flags -c '{}' -o '$copy/objects/'\$(basename '{}').o"
# shellcheck disable=SC2086
"$compiler" -shared $sanitizers -o "$copy/lite_detr_mmdet/ops/_C.so" "$copy"/objects/*.o $flags -ltorch -ltorch_cpu -lc10

echo "== running"
runtime=$("$compiler" -print-file-name=libasan.so)
export LITE_DETR_OPS_ONLY=1 PYTHONPATH="$copy" OMP_NUM_THREADS=2 PYTHONDONTWRITEBYTECODE=1
# Python and torch keep memory until the process ends, so leaks are not looked for.
export ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:detect_odr_violation=0 UBSAN_OPTIONS=print_stacktrace=1
if [ $# = 0 ]; then
    # What reaches the kernels; compiler, export and subprocesses are the same code with more of torch around it.
    set -- tests/ops/test_key_aware_deform_attn.py tests/ops/test_multi_scale_deform_attn.py tests/ops/test_gradients.py \
        tests/ops/test_fuzz.py
fi
cd "$copy"
for isa in ${ISAS:-default avx2 avx512}; do
    echo "-- $isa"
    # libstdc++ must be there before the sanitizer looks for it; --capture=sys lets its report through
    LD_PRELOAD="$runtime $("$compiler" -print-file-name=libstdc++.so.6)" LITE_DETR_CPU_CAPABILITY=$isa \
        "$python" -m pytest -q -x -p no:cacheprovider --capture=sys -k 'not memory_of_the_forward' "$@"
done
