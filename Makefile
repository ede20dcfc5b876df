# `make run` shows the product on its demonstration data; `make help` lists the rest.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
# Which Python makes the environment; uv finds a fitting one, so it is rarely needed: make setup PYTHON=3.12
PYTHON ?=
LOCAL_UV := .uv/bin/uv
# Settings of whoever runs this that would put another environment, index or package source in place of the lock's.
CLEAN_ENV := env -u VIRTUAL_ENV -u UV_PROJECT_ENVIRONMENT -u PYTHONPATH -u PYTHONHOME
ARGS ?=

.PHONY: help setup faster run test lint check bench models docs clean

help: ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/jars.stamp ## make the environment (once)

faster: setup ## once: archive Java classes, so that every session starts in about half the time (1 min, 180 MB)
	@$(BIN)/python -m lakehouse.classes

run: setup ## run the whole product on demonstration data; ARGS="--help" shows its options
	@$(BIN)/segmentation run $(ARGS)

test: setup ## run every test
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## style, types, layers and the tests that need no Java: what a change must pass
	$(BIN)/pytest -q tests/unit

bench: setup ## measure against a single-machine engine on the same work
	@$(BIN)/python -m bench $(ARGS)

models: setup ## train and judge every model on the past of the lakehouse `make run` made; ARGS="--help" shows options
	@$(BIN)/segmentation models evaluate $(ARGS)

docs: setup ## write the data dictionary and the other generated pages
	@$(BIN)/segmentation docs $(ARGS)

clean: ## remove the environment and what tools leave behind; keeps the tables in .lakehouse and the downloaded jars
	rm -rf $(VENV) .uv build dist mlruns .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment follows the lock: one of everything, so that run, test and the notebooks share it.
$(VENV)/sync.stamp: uv.lock pyproject.toml
	@set -e; \
	uv=$$(command -v uv || true); \
	if [ -n "$$uv" ] && ! "$$uv" sync --all-groups --help >/dev/null 2>&1; then \
	  echo "setup: $$uv is too old and is passed over"; uv=; \
	fi; \
	if [ -z "$$uv" ]; then \
	  uv=$(LOCAL_UV); \
	  if [ ! -x "$$uv" ]; then \
	    python=; \
	    for name in python3.12 python3.11 python3 python; do \
	      if "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then \
	        python=$$name; break; fi; done; \
	    if [ -z "$$python" ]; then \
	      echo "setup: no usable Python found; install Python 3.11 or 3.12 (Debian/Ubuntu: sudo apt-get install python3 python3-venv; macOS: brew install python@3.12)." >&2; exit 3; fi; \
	    echo "setup: installing uv into .uv"; \
	    $(CLEAN_ENV) "$$python" -m venv --clear .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'; \
	  fi; \
	fi; \
	echo "setup: installing the locked packages into $(VENV)"; \
	$(CLEAN_ENV) "$$uv" sync --quiet --frozen --compile-bytecode --all-extras --all-groups $(if $(PYTHON),--python $(PYTHON))
	@touch $@

# Java is asked for here rather than at the first run, so that a missing one is known before anything long starts.
$(VENV)/jars.stamp: $(VENV)/sync.stamp lakehouse/jars.py lakehouse/java.py
	@$(BIN)/python -m lakehouse.java
	@$(BIN)/python -m lakehouse.jars
	@touch $@
