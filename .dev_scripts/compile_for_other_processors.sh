#!/usr/bin/env bash
# Compile the CPU kernels, which need no torch, for other platforms with clang as the ziglang wheel of PyPI brings it:
#   .dev_scripts/compile_for_other_processors.sh [TARGET...]
# Default targets: aarch64-linux-gnu aarch64-macos x86_64-macos x86_64-linux-gnu x86_64-windows-gnu. Objects are thrown
# away: this shows that the sources compile, and how many instructions of a kind the aarch64 kernels have.
# PY names an interpreter with ziglang (pip install ziglang; default: .venv/bin/python).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PY:-.venv/bin/python}
"$python" -c 'import ziglang' || { echo "pip install ziglang first" >&2; exit 1; }
targets=("$@")
[ $# -gt 0 ] || targets=(aarch64-linux-gnu aarch64-macos x86_64-macos x86_64-linux-gnu x86_64-windows-gnu)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for target in "${targets[@]}"; do
    for source in csrc/core/checks.cpp csrc/cpu/call.cpp csrc/cpu/capability.cpp csrc/cpu/kernels_*.cpp; do
        "$python" -m ziglang c++ -target "$target" -std=c++17 -O3 -g0 -DNDEBUG -Wno-psabi -Wno-pass-failed \
            -c "$source" -o "$folder/$(basename "$source").o"
    done
    echo "$target: compiled"
done
