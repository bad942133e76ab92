# ciclo's own commands. Each creates the environment first; only git, make and a python3 of 3.11 or
# newer must be installed.

PYTHON ?= python3
READY := .venv/.ready
DEST ?= build/demo
.DEFAULT_GOAL := help
# The environment's tools, uv among them, come first for the projects that are rendered here too.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
SPREAD = -n auto --dist loadgroup --no-loadscope-reorder
export MLFLOW_DISABLE_TELEMETRY = true
# Imports take three times as long if Python cannot cache compiled files.
unexport PYTHONDONTWRITEBYTECODE

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	|| { echo "error: $(PYTHON) is not a Python of 3.11 or newer; say where one is: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making .venv" >&2
	@$(PYTHON) -m venv --clear .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.txt
	@touch $@

setup: $(READY) ## create .venv

.PHONY: setup demo test test-fast test-full test-run test-engine lint bench chaos bench-cycle variants constraints release requirements site picture clean help
demo: $(READY) ## the whole cycle on real flights, into DEST=build/demo
	@.venv/bin/python demo/run.py '$(DEST)'

test: $(READY) lint ## all tests, with a covering set of projects that run
	@.venv/bin/pytest $(SPREAD) -m 'not full' --durations 20

test-fast: $(READY) lint ## the tests that need no project's environment: about a minute
	@.venv/bin/pytest -n auto -m 'not heavy and not full'

test-full: $(READY) lint ## all tests, with every distinct project
	@.venv/bin/pytest $(SPREAD)

lint: $(READY) ## ruff and mypy on the template's own code
	@.venv/bin/ruff check --quiet
	@.venv/bin/ruff format --check --quiet
	@.venv/bin/mypy --no-error-summary

bench: $(READY) ## measure against alternatives, as ratios
	@.venv/bin/python benchmarks/run.py

chaos: $(READY) ## break a project under load on purpose, and count what is lost (SHORT=1, ONLY='SIGKILL soak')
	@.venv/bin/python benchmarks/run.py chaos $(if $(SHORT),--short) $(if $(ONLY),--only $(ONLY))

bench-cycle: $(READY) ## compare the cycle with retraining schedules on data streams (SEEDS=3)
	@.venv/bin/python benchmarks/cycle.py --seeds '$(or $(SEEDS),3)'

variants: $(READY) ## the matrix of variants as JSON (COVERING=1, PROJECTS=1: those that run; CHECK=answers.yml)
	@.venv/bin/python tests/support/variants.py $(if $(COVERING),--covering) $(if $(PROJECTS),--projects) $(if $(CHECK),--check '$(CHECK)')

site: $(READY) ## the documentation with the explorer as a site, in build/site
	@PYTHONPATH=tests/support .venv/bin/python website/pages.py

picture: site ## make docs/explorer.png again (BROWSER=chromium)
	@.venv/bin/uv run --quiet --script tests/support/browse.py "$$(command -v '$(or $(BROWSER),chromium)')" build/site docs/explorer.png

test-run: $(READY) ## run one project: ONLY=classification-uv-onnx
	@.venv/bin/pytest tests/test_run.py -k '$(ONLY)'

test-engine: $(READY) ## the tests of the rendered code, in build/engine (TESTS='tests/engine/test_journal.py -x', PROBLEM=, FORMAT=)
	@.venv/bin/python tests/support/engine_tests.py $(or $(TESTS),tests/engine)

constraints: $(READY) ## resolve the projects' tested versions again, and test them
	@.venv/bin/python scripts/constraints.py
	@.venv/bin/python scripts/taken.py
	@$(MAKE) --no-print-directory test

release: $(READY) ## VERSION=1.2.0: run all tests, write the changelog's heading, tag
	@.venv/bin/python scripts/release.py '$(VERSION)'

requirements: $(READY) ## resolve the versions of the tests' own environment again
	@.venv/bin/uv pip compile --quiet --universal --upgrade --python-version 3.11 --generate-hashes \
		--custom-compile-command 'make requirements' --group pyproject.toml:test --group pyproject.toml:site \
		--output-file requirements.txt

clean: ## remove generated files
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
