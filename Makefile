.DEFAULT_GOAL := help
PY := .venv/bin/python
#: Interpreters to try, in this order; `make PYTHON=... run` tries that one only.
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11

# A set-up that was cut off left no stamp. One whose interpreter has gone keeps its stamp, so it goes here.
# The base interpreter is asked for below, since `python3` may be the one in the .venv that is about to go.
$(shell test -x $(PY) || rm -f .venv/.stamp)

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed 's/:.*## /\t/' | expand -t 14

.venv/.stamp: requirements.lock
	@bare=; found=; \
	for python in $(or $(PYTHON),$(PYTHONS)); do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  if $$python -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	    found=$$($$python -c 'import sys; print(sys._base_executable)'); break; \
	  fi; \
	  bare=$${bare:-$$python}; \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	  echo "gleand: $$bare cannot make a virtual environment: its venv module is missing." >&2; \
	  echo "  On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; \
	fi; \
	if [ -z "$$found" ]; then \
	  echo "gleand: no Python 3.11 or newer was found (tried: $(or $(PYTHON),$(PYTHONS)))." >&2; \
	  echo "  Install one, or name it: make PYTHON=/path/to/python3 run" >&2; exit 1; \
	fi; \
	echo "setting up .venv with $$found (once; again when requirements.lock changes)"; \
	rm -rf .venv && $$found -m venv .venv
	@$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

run: .venv/.stamp ## Start the daemon (ARGS="--config gleand.toml")
	$(PY) daemon.py $(ARGS)

test: .venv/.stamp ## Run the tests (ARGS="tests/unit -x")
	$(PY) -m pytest -q $(ARGS)

# These are part of `make test` as well, which skips those whose server is not installed.
test-servers: .venv/.stamp ## Run the tests that scrape a real server; a missing one is a failure
	CI=true NEED_SERVERS=true $(PY) -m pytest -q tests/e2e/test_hgweb.py tests/e2e/test_pelican.py \
	  tests/e2e/test_mediawiki.py $(ARGS)

check: lint types test ## Format, lint, types, tests: green before a commit

lint: .venv/.stamp ## Formatting and lint
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: .venv/.stamp ## Types
	$(PY) -m mypy .

format: .venv/.stamp ## Format the code
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

docs: .venv/.stamp ## Write the generated parts of the documents anew
	$(PY) -m docs.generate

bench: .venv/.stamp ## Measure throughput beside Celery; see benchmarks/README.md (ARGS="--no-peer")
	$(PY) -m benchmarks.throughput $(ARGS)

lock: .venv/.stamp ## Resolve setup.cfg into requirements.lock (ARGS="--upgrade")
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(PY) -m uv pip compile -q --universal --python-version 3.11 \
	  --generate-hashes --no-emit-find-links --no-emit-index-url --extra dev setup.cfg -o requirements.lock $(ARGS)

clean: ## Remove .venv, caches and what was built; data stays
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help run test test-servers check lint types format docs bench lock clean
