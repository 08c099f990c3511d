# Two commands: `make demo` does the main job on real input, `make test` runs every check. Both set up `.venv` first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= auto

.PHONY: setup setup-dev demo test lint types docs clean

setup: $(VENV)/.installed-demo

setup-dev: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Metier needs Python 3.11 or newer; run: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# torch comes first and by its pinned version: otherwise gigabytes of CUDA packages come along.
$(VENV)/.installed-demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-demo
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]' -e tests/example_pack
	touch $@

demo: setup
	$(BIN)/metier demo

# One thread each: the tests' models are tiny, and threads only wait for each other. As many processes as there are cores, but for those beyond four:
# each has torch in memory. A file's tests stay together, for what they set up is shared. `make test JOBS=0` runs them in one process.
test: setup-dev lint types
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --maxprocesses 4 --dist loadfile

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup-dev
	$(BIN)/mypy

docs: setup-dev
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site
