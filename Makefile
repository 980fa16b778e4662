# Two commands matter: `make demo` and `make test`. Everything they need, they install into .venv and .cache.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help demo test servers faults soak fuzz check tools lock bench bench-full bench-stages clean

help: ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.run: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "penstock needs Python 3.11 or newer: set PYTHON=..." >&2; exit 1; }
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked dependencies (once)" >&2
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock requirements-tokenizers.lock $(VENV)/.run
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements-tokenizers.lock
	@touch $@

demo: $(VENV)/.run ## the main job on an embedded broker and a simulated model
	@$(BIN)/penstock demo $(ARGS)

tools: $(VENV)/.dev ## what the tests need beside Python: Java, Maven, the broker's jars, compose's and Prometheus' checkers, a model server
	@for step in "bash tests/support/setup.sh" "bash tests/support/install_deploy_tools.sh" "bash tests/support/install_model_server.sh" "$(BIN)/python -m tests.support.kafka --fetch"; do \
	  $$step >&2 || { [ -z "$${CI:-}" ] || exit 1; echo "not there: $$step failed; tests that need it will be skipped, and say so" >&2; }; \
	done

check: $(VENV)/.dev ## ruff, mypy, import-linter, interrogate
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports >/dev/null || { $(BIN)/lint-imports; exit 1; }
	@$(BIN)/interrogate --quiet workers topics tests

test: tools check ## every test that belongs in a daily run
	@$(BIN)/pytest -n 3 --dist loadfile $(ARGS)  # on two cores: half of it waits

faults: tools ## faults at random moments on real brokers, and what they did (about 15 minutes)
	@$(BIN)/pytest -n 2 --dist load --maxschedchunk 1 tests/chaos/test_soak.py tests/chaos/test_cluster.py tests/chaos/test_chaos.py tests/faults/test_crash_points.py $(ARGS)

SERVERS ?= vllm transformers ollama
servers: $(VENV)/.dev ## real model servers for the contract tests: make servers SERVERS=vllm; minutes to an hour, gigabytes
	@failed=; for server in $(SERVERS); do bash tests/support/run_on_$$server.sh $(ARGS) || failed="$$failed $$server"; done; \
	  [ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }

HOURS ?= 1
soak: tools ## the same for hours, at 70 % load: make soak HOURS=8
	@$(BIN)/python -m tests.bench.soak --hours $(HOURS) $(ARGS)

fuzz: $(VENV)/.dev ## fuzzing guided by coverage: make fuzz ARGS="--seconds 600 decode"
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
	@$(BIN)/python -m tests.fuzz $(ARGS)

W ?=
PEERS ?=
CHOSEN = $(if $(W),--workload $(W)) $(if $(PEERS),--worker $(PEERS))
bench: $(VENV)/.dev ## beside peers, on the real broker, under ten minutes; one cell: make bench W=W3 PEERS=connect
	@$(BIN)/python -m tests.bench.matrix $(CHOSEN) $(ARGS)

bench-full: $(VENV)/.dev ## all workloads and all peers, each as it comes and at its best: hours
	@$(BIN)/python -m tests.bench.matrix --full $(CHOSEN) $(ARGS)

bench-stages: $(VENV)/.dev ## where the microseconds of a record go, step by step: under a minute
	@$(BIN)/python -m tests.bench.stages $(ARGS)

lock: ## pin the dependencies again (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra demo --group build pyproject.toml -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra demo --group build --group dev pyproject.toml -c requirements.lock -o requirements-dev.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group fuzz -o requirements-fuzz.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-deps --group tokenizers -o requirements-tokenizers.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group model-servers -o requirements-model-servers.lock

clean: ## remove the environment and the caches
	rm -rf $(VENV) .cache dist build
