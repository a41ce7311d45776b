# The same commands as in README and in CI. Everything lives in .venv; a second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin
# Tests run in one process a core, each file's tests in one of them. Each process computes with one thread: their
# models are small. Compiled tests are kept, so that later runs collect faster.
CORES := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
# Files begin in the order of tests/conftest.py, the longest first.
SPREAD := $(shell [ $(CORES) -eq 1 ] || echo -p xdist --numprocesses=$(CORES) --dist=loadfile --no-loadscope-reorder)
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD)

.PHONY: setup train test test-slow test-all test-faults check docs clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "minitx needs Python 3.11, 3.12 or 3.13 and this is %d.%d: make setup PYTHON=python3.11" % v)'
	@echo 'installing into .venv: once, some minutes'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt torch==2.13.0
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@

train: setup  ## the main job, on the embedded text
	$(BIN)/python train.py model=transformer

test: setup  ## a proof of every part, in minutes
	$(PYTEST) -m 'not slow' --hypothesis-profile=quick

test-slow: setup  ## what `make test` leaves out: the slow tests, and property tests with all their examples
	$(PYTEST) -m 'slow or hypothesis'

test-all: setup  ## all tests in one go, property tests with all their examples: what files of both kinds need is made once
	$(PYTEST)

test-faults: setup  ## several ranks stopped, killed, hung, cut apart, on two hosts and under SLURM; a million pairs streamed: half an hour
	MINITX_FAULTS=full $(BIN)/python -m pytest -rs -s tests/system/test_ranks.py tests/system/test_elastic.py tests/system/test_clusters.py tests/system/test_streaming.py

check: setup
	$(BIN)/ruff check .
	$(BIN)/mypy --strict src
	$(BIN)/python -m pytest tests/test_layers.py

docs: setup  ## the tables of its pages that are made from the code; the site, into build/docs: warnings are errors
	$(BIN)/python docs/reference.py
	$(BIN)/python -m sphinx -q -E -W --keep-going -n docs build/docs

clean:  ## what can be made again; runs/ stays
	rm -rf .venv build dist wheels .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
