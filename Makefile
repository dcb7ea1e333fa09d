# RerankOps. `make` lists what there is. Written for GNU make 3.81 and newer, Linux and macOS.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.setup
UV := uv==0.13.9
# Arguments for the command behind a target, as in: make demo ARGS="--set training.seed=1"
ARGS ?=
# Python keeps its compiled modules, also where the environment forbids it as container images do: each command line would
# compile Dagster, MLflow and the like again, which takes longer than to load them.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo dev test check servers lint format types imports pytest bench settings lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

# The lock leaves out the CUDA packages, so plain pip takes torch with what it needs first: a CPU build where pip is set up to
# find one (see CONTRIBUTING.md), else the build of the index. uv then installs exactly the rest.
setup: ## Make .venv from requirements.lock; instant when nothing changed
	@want="$$(cat requirements.lock pyproject.toml | cksum)"; \
	if [ -x $(BIN)/python ] && [ "$$(cat $(STAMP) 2>/dev/null)" = "$$want" ]; then exit 0; fi; \
	set -e; \
	if [ "$$(uname -sm)" = "Darwin x86_64" ]; then \
	  echo "torch, FAISS and ONNX Runtime have no wheels for Intel Macs: use Linux, or a Mac with Apple silicon." >&2; exit 1; fi; \
	if ! [ -x $(BIN)/python ]; then \
	  "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "RerankOps needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>&1 || true)." >&2; \
	    echo "Name one that is: make setup PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	  "$(PYTHON)" -m venv .venv; \
	fi; \
	rm -f $(STAMP); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock \
	  "$$(grep -E '^torch==' requirements.lock | cut -d' ' -f1)"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV); \
	$(BIN)/python -m uv pip install --quiet --no-deps --requirement requirements.lock; \
	$(BIN)/python -m uv pip install --quiet --no-deps --no-build-isolation --editable .; \
	echo "$$want" > $(STAMP)

demo: setup ## The whole life of a reranker on the embedded corpus
	@$(BIN)/rerankops demo $(ARGS)

dev: setup ## Dagster's web server and daemon
	@$(BIN)/rerankops dev $(ARGS)

test: ## All that CI runs: setup, servers, lint, types, imports, pytest
	@.ci/run

check: ## The two-minute loop: lint, types, imports, the tests without models, servers and processes
	@.ci/run check

servers: ## Start the servers that the tests use
	@.ci/servers

lint: setup ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup ## ruff: mend what can be mended, then format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: setup ## pyright
	@$(BIN)/pyright

imports: setup ## import-linter: the one direction of imports
	@$(BIN)/lint-imports

# One thread in each of the processes, so that they share the cores and not fight for them. A file stays on one worker, which
# makes what its tests share once; tests/heavy.py puts the files first that take longest. One worker more than cores: some
# tests wait for processes and servers.
pytest: setup ## The tests, as in: make pytest ARGS="tests/models -k gate"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --maxprocesses 4 \
	  --dist loadfile --no-loadscope-reorder $(ARGS)

bench: setup ## Measured comparisons; writes docs/benchmarks
	@$(BIN)/python -m bench $(ARGS)

settings: setup ## Print what rerankops.toml lacks: a block for each key, to be put in its place
	@$(BIN)/python -m models.settings.toml_file

contracts: setup ## Write docs/data-contracts.md anew from the schemas
	@$(BIN)/python -m models.operations.contract_page > docs/data-contracts.md.new
	@mv docs/data-contracts.md.new docs/data-contracts.md

# Versions already locked are kept; `make lock ARGS="--upgrade-package dagster"` moves one. What torch brings for CUDA is left out:
# it comes with torch itself. One file serves Linux and macOS, Python 3.11 and newer.
lock: ## Resolve requirements.lock anew from pyproject.toml
	@set -e; trap 'rm -f .lock.tmp' EXIT; cp requirements.lock .lock.tmp; \
	$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header \
	  --annotation-style line pyproject.toml --output-file .lock.tmp $(ARGS); \
	{ echo "# Every dependency of every extra, resolved for Linux and macOS by \`make lock\`."; \
	  grep -vE "^(nvidia-|cuda-|triton==)|sys_platform == '(win32|emscripten)'|os_name == 'nt'" .lock.tmp | \
	    sed -E 's/^(torch==[0-9.]+)\+[a-z0-9]+/\1/'; } > requirements.lock

clean: ## Remove .venv and caches; var/ stays
	@rm -rf .venv build ./*.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './var/*' -prune -exec rm -rf {} +
