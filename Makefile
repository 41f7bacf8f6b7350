# The two commands: `make quickstart` runs the main job on embedded data, `make test` passes the tests.

VENV ?= .venv
# Scripts find the package through the environment, so that another one can be used: make test VENV=... or PY=...
PY ?= $(VENV)/bin/python
STAMP = $(VENV)/.lite_detr_mmdet

.PHONY: quickstart quickstart-baseline test lint format clean

quickstart: $(STAMP)
	$(PY) tools/quickstart.py

quickstart-baseline: $(STAMP)
	$(PY) tools/quickstart.py --baseline

test: $(STAMP)
	$(PY) -m pytest -q tests

lint: $(STAMP)
	$(PY) -m pip install -q -r requirements/dev.txt
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m codespell_lib

format: $(STAMP)
	$(PY) -m pip install -q -r requirements/dev.txt
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

$(STAMP): tools/dev/setup_env.sh setup.py setup.cfg $(wildcard requirements/*.txt) $(wildcard csrc/*.* csrc/*/*.*)
	tools/dev/setup_env.sh $(VENV)
	touch $@

clean:
	rm -rf build dist *.egg-info work_dirs data/shapes lite_detr_mmdet/.mim
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
