# make demo | test | lint | docs | dist | lowest | coverage | benchmark | clean. Everything is installed into .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTHONS ?= python3.11 python3.12 python3.13
LOWEST ?= python3.11
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint docs dist lowest coverage benchmark clean
.DEFAULT_GOAL := test

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "shoal needs Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	SHOAL_AHEAD=0 $(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/python src/shoal/network/kernels/ahead.py || true
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

# sdist and wheel, checked, and the wheel tried in a fresh environment of each Python there is.
dist: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt build twine
	rm -rf build dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	@for python in $(PYTHONS); do \
		if ! $$python -c "" 2> /dev/null; then echo "$$python: not here, skipped"; continue; fi; \
		echo "$$python: installs the wheel"; \
		$$python -m venv build/$$python && \
		build/$$python/bin/python -m pip install --quiet -c constraints.txt dist/*.whl && \
		(cd build && $$python/bin/shoal --version && \
			$$python/bin/shoal fit sample:digits -m 16 -k 2 -q -o run-$$python) || exit 1; \
	done

# What the tests of two rooms reach, with a floor; half as long again as without. Apart from `test`,
# whose suite is long enough.
coverage: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt pytest-cov
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/data tests/diagnosis \
		--cov=shoal.data --cov=shoal.diagnosis --cov-report=term:skip-covered \
		--cov-fail-under=87 $(ARGS)

# The lowest versions that pyproject.toml promises, but torch, tried on a part of the tests.
lowest: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt uv
	rm -rf build/lowest
	$(BIN)/uv venv --quiet --python $(LOWEST) build/lowest
	$(BIN)/uv pip install --quiet --python build/lowest/bin/python --resolution lowest-direct \
		$(addprefix --find-links ,$(PIP_FIND_LINKS)) -e ".[parquet,zarr,hdf5]" $$(grep '^torch==' constraints.txt) \
		"pytest>=8" "pytest-timeout>=2.3" "hypothesis>=6.100" "pandas>=2.2" "polars>=1"
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 build/lowest/bin/python -m pytest -q -k "not check" -W ignore::DeprecationWarning \
		-p no:cacheprovider tests/data/test_sources.py tests/network/test_inference.py \
		src/shoal/estimators src/shoal/runs.py $(ARGS)

clean:
	rm -rf docs/_build docs/auto_examples docs/api docs/sg_execution_times.rst
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
