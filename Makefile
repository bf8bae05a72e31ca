# The few commands of the project. Each sets up what it needs; the second time that takes no time.
#   make run [ARGS="--mode simulated"]   make test [ARGS="-k landing"]   make bench   make lint   make constraints

VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 3
ARGS ?=
SUITABLE := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c '$(SUITABLE)' 2>/dev/null && { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help run test bench lint format docs constraints launcher-newest
.DEFAULT_GOAL := help

help:
	@sed -n '1,2p' Makefile | sed 's/^# *//'

run: $(VENV)/.installed
	@$(BIN)/liq up $(ARGS)

# Three workers on two cores: a third of a test's time is waiting for servers (14 min with two, 10 with three).
# loadgroup: tests of one server that is dear to start (see conftest.py) share it in one process.
test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

bench: $(VENV)/.installed-dev
	@$(BIN)/python -m bench $(ARGS)

# The warm launcher stands on Dagster's inner interfaces: its contract on the newest Dagster that there is, in an
# environment of its own. No part of `make test`; a failure says what the next step of the pins has to mend.
NEWEST := build/newest/bin/python
launcher-newest:
	@rm -rf build/newest
	@$(PYTHON) -m venv build/newest
	@$(NEWEST) -m pip --disable-pip-version-check --quiet install -c constraints.txt -e '.[dev]'
	@$(NEWEST) -m pip --disable-pip-version-check --quiet install --upgrade --no-deps \
	   dagster dagster-shared dagster-pipes dagster-graphql dagster-webserver dagster-postgres
	@$(NEWEST) -m pip --disable-pip-version-check freeze | grep '^dagster'
	@$(NEWEST) -m pytest -n 0 -q $(wildcard liq_pipeline_tests/*/test_launcher_*.py) \
	   liq_pipeline_tests/integration/test_runtime_dagster_storage.py $(ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# The pages that are written from the code.
docs: $(VENV)/.installed
	@$(BIN)/python -m liq_pipeline.operations.settings_page
	@$(BIN)/python -m liq_pipeline.operations.schema_pages
	@$(BIN)/python -m liq_pipeline.operations.architecture_picture

# Every transitive version, from a fresh environment.
constraints:
	@rm -rf build/constraints
	@$(PYTHON) -m venv build/constraints
	@build/constraints/bin/python -m pip --disable-pip-version-check --quiet install -e '.[dev]'
	@{ echo '# Every transitive version, exactly. Refresh: make constraints'; \
	   build/constraints/bin/python -m pip freeze --exclude-editable; } > build/constraints.txt
	@mv build/constraints.txt constraints.txt
	@rm -rf build/constraints

$(VENV)/.ready:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed: install it, or name one with make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c '$(SUITABLE)' || { echo '$(PYTHON) is older than Python 3.11: name a newer one with make PYTHON=/path/to/python3' >&2; exit 1; }
	@echo 'Making the environment $(VENV) with $(PYTHON) ...'
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo '$(PYTHON) cannot make an environment: install the venv module of your system (on Debian: python3-venv)' >&2; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.ready pyproject.toml constraints.txt
	@echo 'Installing what the program needs (the first time: some minutes, 1.1 GB on disk) ...'
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.ready pyproject.toml constraints.txt
	@echo 'Installing what the program and its tests need (the first time: some minutes, 1.2 GB on disk) ...'
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed
