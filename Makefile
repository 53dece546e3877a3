# `make` alone lists the targets. Each sets up what it needs; nothing is written outside this folder.

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready

NEW_ENOUGH := import sys; assert sys.version_info >= (3, 11)
PYTHON = $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,\
         $(shell $(name) -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && command -v $(name))))
UV    := $(shell command -v uv 2>/dev/null)
# uv does what venv and pip do, and is used where it is installed.
INSTALL = $(if $(UV),$(UV) pip install --python $(BIN)/python,$(BIN)/python -m pip install --disable-pip-version-check)

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-chain serve test static check prove prove-short mutate deep bench bench-peers bench-scale bench-guarded bench-observed bench-pools bench-landing docs site lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(READY) ## Make .venv with the fillwright command and everything that development needs

demo: $(READY) ## Start an engine, execute five orders at once and watch them live
	@$(BIN)/fillwright demo

demo-chain: $(READY) ## The same with signed transactions, on a local Solana chain
	@$(BIN)/fillwright demo --chain

serve: $(READY) ## Run the engine on http://localhost:3000 until Ctrl-C
	@exec $(BIN)/fillwright serve

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest -n auto

static: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

check: static test ## Check format, lint and types, and run the tests: what CI runs

prove: $(READY) ## Try to lose, double or misreport an order in every way we know, for half an hour; build/proof.json
	$(BIN)/python -m tests.proof

prove-short: $(READY) ## The same in its short form, which is also a part of the tests
	$(BIN)/python -m tests.proof --short

mutate: $(READY) ## Change the core in a thousand small ways, and see whether its tests notice
	$(BIN)/python -m tests.mutation

deep: $(READY) ## Try the properties of quotes with a million and a half random pools and amounts, for more than an hour
	$(BIN)/python -m pytest tests/venues/test_pools.py --hypothesis-profile deep -n auto --dist worksteal

bench: $(READY) ## Measure the engine; the figures also go to build/bench.json
	$(BIN)/python -m benchmarks.engine

bench-peers: $(READY) ## Measure the engine beside a Node engine, on the same PostgreSQL and Redis (needs Node 20)
	$(BIN)/python -m benchmarks.peers

bench-scale: $(READY) ## Measure how cost grows with old orders, orders in hand and workers
	$(BIN)/python -m benchmarks.scale

bench-guarded: $(READY) ## Measure what keys and limits cost
	$(BIN)/python -m benchmarks.guarded

bench-observed: $(READY) ## Measure what metrics and logs cost
	$(BIN)/python -m benchmarks.observed

bench-pools: $(READY) ## Measure quotes of real pools beside the official JavaScript SDKs (needs Node 20)
	$(BIN)/python -m benchmarks.pools

bench-landing: $(READY) ## Measure how soon an order is sent to a node, on a local chain
	$(BIN)/python -m benchmarks.landing

docs: $(READY) ## Write the generated pages anew: lifecycle, errors, settings, .env.example
	$(BIN)/python docs/generate.py

site: $(READY) ## Build the documentation as a site, into build/site
	$(BIN)/python docs/site.py

# Keeps the versions that are pinned already and still fit; `make lock UPGRADE=1` takes the newest of all.
lock: COMPILE = $(or $(UV),$(BIN)/uv) pip compile --quiet --no-config --universal --python-version 3.11 \
                --generate-hashes --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade) pyproject.toml
lock: $(READY) ## Pin what pyproject.toml asks for, with hashes
	@$(if $(UV),,test -x $(BIN)/uv || $(INSTALL) --quiet uv)
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --output-file requirements-dev.lock --group dev --constraint requirements.lock

clean: ## Remove .venv, build output and caches; databases stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# Made once, and again when the lock or the project's metadata change. A .venv that is there and can be used is kept.
$(READY): pyproject.toml requirements-dev.lock
	@$(if $(PYTHON)$(UV),,echo 'Fillwright needs Python 3.11 or newer; PATH has none. Install it, or uv.' >&2; exit 1)
	@$(BIN)/python -c '$(NEW_ENOUGH)$(if $(UV),,; import pip)' 2>/dev/null || { rm -rf $(VENV) && \
	  $(if $(UV),$(UV) venv --quiet --python '$(or $(PYTHON),>=3.11)' $(VENV),$(PYTHON) -m venv $(VENV)); }
	$(INSTALL) --quiet --require-hashes --requirement requirements-dev.lock
	$(INSTALL) --quiet --no-deps --no-build-isolation --editable .
	@touch $@
