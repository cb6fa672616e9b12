# make demo | test | lint | docs | dist | benchmark | clean. Everything is installed into .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint docs dist benchmark clean
.DEFAULT_GOAL := test

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "shoal needs Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

# Learns 256 atoms from whitened patches of natural images.
demo: $(INSTALLED)
	$(BIN)/shoal fit sample:patches -m 256 -k 2 --preprocess whiten --seed 0 --force -o runs/patches

# One thread a worker: two workers that spawn threads of their own wait for each other.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Planted dictionaries: shoal and its peers on one clock and one thread, half an hour.
benchmark: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,benchmark]"
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 \
		$(BIN)/python -m benchmarks.recovery --json benchmarks/results/recovery.json \
		--figure docs/recovery.png $(ARGS)

# The site, with warnings as errors, into docs/_build/html. The gallery's scripts run once.
docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,docs]"
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html $(ARGS)

# sdist and wheel, checked, and the wheel tried in a fresh environment.
dist: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt build twine
	rm -rf build dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/fresh
	build/fresh/bin/python -m pip install --quiet -c constraints.txt dist/*.whl
	cd build && fresh/bin/shoal --version && fresh/bin/shoal --help > /dev/null

clean:
	rm -rf docs/_build docs/auto_examples docs/api docs/sg_execution_times.rst
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
