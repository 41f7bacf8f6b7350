# The two commands: `make quickstart` runs the main job on embedded data, `make test` passes the tests.

VENV ?= .venv
# With PY=... (a Python that has everything, e.g. a conda environment) no environment is made.
ifdef PY
STAMP =
else
PY = $(VENV)/bin/python
STAMP = $(VENV)/.lite_detr_mmdet
endif
CLANG_FORMAT = $(PY) -c 'from clang_format import clang_format; clang_format()'
SOURCES = $(wildcard csrc/*.h csrc/*.cpp csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu csrc/*/*.cuh)

.PHONY: quickstart quickstart-baseline bccd-checkpoint test test-fast test-slow lint docs format environment kernels sanitize fuzz-op cuda-build wheels release-check clean

quickstart: $(STAMP)
	$(PY) tools/quickstart.py

quickstart-baseline: $(STAMP)
	$(PY) tools/quickstart.py --baseline

# Train a small Lite-DINO on BCCD (real images; BCCD_ROOT names its folder), evaluate it on the test images, publish it.
BCCD = lite-dino-4scale_h3l1-2p1x1_r18_1xb4-12e_bccd
BCCD_CONFIG = configs/lite_dino/$(BCCD).py
bccd-checkpoint: $(STAMP)
	$(PY) tools/train.py $(BCCD_CONFIG) --work-dir work_dirs/$(BCCD) --resume
	$(PY) tools/test.py $(BCCD_CONFIG) work_dirs/$(BCCD)/epoch_12.pth --work-dir work_dirs/$(BCCD)/test
	$(PY) tools/model_converters/publish_model.py work_dirs/$(BCCD)/epoch_12.pth work_dirs/$(BCCD)/published --fp16

# In two processes, each on one thread; what is slow is left to `make test-slow`, which .ci/run calls, too.
# Files keep the order that tests/conftest.py gives them; pytest-xdist would begin with those of the most tests.
JOBS ?= 2
PYTEST = $(PY) -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder
test: $(STAMP)
	$(if $(STAMP),$(PY) -m pip install -q -r requirements/export.txt -r requirements/adapters.txt -c requirements/constraints.txt)
	$(PYTEST) -m 'not slow' tests

test-slow: $(STAMP)
	$(if $(STAMP),$(PY) -m pip install -q -r requirements/export.txt -r requirements/adapters.txt -c requirements/constraints.txt)
	$(PYTEST) -m slow tests

# At most three minutes on two cores, for every save: names, pages, imports, tables, the operator's checks. It prints
# what it leaves out, and pytest says how many of these files' tests.
FAST = tests/test_*.py tests/zoo tests/compat tests/dev_scripts tests/configs/test_metafile.py tests/ops/test_checks.py
test-fast: $(STAMP)
	$(PYTEST) -m 'not slow and not process' $(FAST)
	@echo 'left out: other folders of tests, which build detectors or compare kernels, and what runs in processes of its'
	@echo 'own (make test); what is slow (make test-slow)'

environment: $(STAMP)

lint: $(STAMP)
	$(PY) -m pip install -q -r requirements/dev.txt -c requirements/constraints.txt
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m codespell_lib
	$(if $(SOURCES),$(CLANG_FORMAT) --dry-run --Werror $(SOURCES))

# The documentation site, into build/site; a broken link is an error.
docs: $(STAMP)
	$(PY) -m pip install -q -r requirements/docs.txt -c requirements/constraints.txt
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

format: $(STAMP)
	$(PY) -m pip install -q -r requirements/dev.txt -c requirements/constraints.txt
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(if $(SOURCES),$(CLANG_FORMAT) -i $(SOURCES))

# Compile every CUDA kernel with nvcc, where there is one; fail if registers spill or more is issued than allowed.
kernels: $(STAMP)
	$(PY) -m pip install -q -r requirements/kernels.txt
	$(PY) .dev_scripts/compile_cuda_kernels.py --archs sm_80 sm_90

# Run the CPU operator's tests under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: $(STAMP)
	PY=$(PY) .dev_scripts/sanitize_cpu_op.sh

# Compare 10,000 random calls of the operator, forward and backward, with an independent form in numpy.
fuzz-op: $(STAMP)
	$(PY) .dev_scripts/fuzz_op.py --calls $(or $(CALLS),10000)

# Build the whole extension with a CUDA torch, which needs nvcc but no GPU, in a folder of its own.
cuda-build:
	.dev_scripts/build_cuda_without_gpu.sh $(or $(FOLDER),build/cuda)

# Build the wheel for the torch of this environment; PYTHONS="python3.10 python3.12" try it in clean environments.
wheels: $(STAMP)
	PY=$(PY) .dev_scripts/build_wheels.sh $(or $(FOLDER),dist)

# Build wheel and source archive, install each in a clean environment, use them there.
release-check:
	.dev_scripts/release_check.sh $(or $(FOLDER),build/release)

ifdef STAMP
$(STAMP): .dev_scripts/setup_env.sh setup.py setup.cfg pyproject.toml $(wildcard requirements/*.txt) $(SOURCES)
	.dev_scripts/setup_env.sh $(VENV)
	touch $@
endif

clean:
	rm -rf build dist *.egg-info work_dirs data/shapes lite_detr_mmdet/.mim
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
