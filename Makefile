.DEFAULT_GOAL := help
PYTHON ?= python3
PY := .venv/bin/python

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

.venv/.stamp: requirements.lock
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q --require-hashes -r requirements.lock
	touch $@

run: .venv/.stamp ## Start the daemon (ARGS="--port 5001")
	$(PY) daemon.py $(ARGS)

test: .venv/.stamp ## Run the tests
	$(PY) -m pytest -q $(ARGS)

format: .venv/.stamp ## Format the code
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

lint: .venv/.stamp ## Formatting and lint
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: .venv/.stamp ## Types
	$(PY) -m mypy .

check: lint types ## Format, lint, types, tests
	$(PY) -m pytest -q

.PHONY: help run test format lint types check
