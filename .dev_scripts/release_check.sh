#!/usr/bin/env bash
# Build the source archive and the wheel, check what they hold, install each in a clean environment and use it there.
#   .dev_scripts/release_check.sh [FOLDER]        (default: build/release)
# The results are FOLDER/dist/*. PYTHON names the interpreter, MAX_JOBS the number of compilers. Takes
# about 4 minutes on 2 cores: the operator is compiled twice.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-build/release}
rm -rf "$folder"
mkdir -p "$folder/dist" "$folder/empty"
folder=$(cd "$folder" && pwd)
root=$PWD
python=$folder/environment/bin/python
export MAX_JOBS=${MAX_JOBS:-$(nproc)}
export PIP_DISABLE_PIP_VERSION_CHECK=1
SECONDS=0
stage() { echo "== [${SECONDS}s] $*"; }
# Outside of the sources, so that the installed package is the one that is found.
outside() { (cd "$folder/empty" && env -u PYTHONPATH "$@"); }

stage "a clean environment with everything but this package"
.dev_scripts/setup_env.sh "$folder/environment" none

stage "source archive and wheel"
git diff --quiet HEAD || { echo "commit first: what is built must be what git tracks" >&2; exit 1; }
git archive --format=tar HEAD | (mkdir "$folder/sources" && tar -x -C "$folder/sources")
(
    cd "$folder/sources"
    "$python" -c 'import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])' \
        "$folder/dist" >"$folder/sdist.log"
    "$python" -m pip wheel --quiet --no-deps --no-build-isolation -w "$folder/dist" .
)
"$python" .dev_scripts/check_distributions.py "$folder"/dist/*.whl "$folder"/dist/*.tar.gz

for distribution in "$folder"/dist/*.whl "$folder"/dist/*.tar.gz; do
    stage "install ${distribution##*/}"
    "$python" -m pip install --quiet --no-deps --no-build-isolation --no-cache-dir "$distribution"
    outside "$python" -m lite_detr_mmdet.ops
    outside "$python" -W ignore "$root/.dev_scripts/smoke_test.py" --installed-in "$folder/environment"
    "$python" -m pip uninstall --quiet --yes lite_detr_mmdet
    if outside "$python" -c 'import lite_detr_mmdet' 2>/dev/null; then
        echo "something of the package is left after it was removed" >&2
        exit 1
    fi
done

stage "mim"
"$python" -m pip install --quiet -r requirements/mim.txt -c requirements/constraints.txt
"$python" -m pip install --quiet --no-deps openmim==0.3.9
(cd "$folder/sources" && LITE_DETR_RELEASE_TESTS=1 PYTHONPATH=. "$python" -m pytest -q tests/tools/test_mim.py)

stage "passed: $(cd "$folder/dist" && echo *)"
