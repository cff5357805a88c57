# `make demo` and `make test` do the set-up themselves; `make setup` alone creates .venv with kdiffe in it.
# Variables: PYTHON (3.11 or newer), FAISS=cpu|gpu, TORCH_INDEX (README: machines without a GPU),
# EXTRAS=browser (the console's tests, beside a Chromium), ONCE=1 for the demo.
PYTHON ?= python3
FAISS ?=
TORCH_INDEX ?=
EXTRAS ?=
VENV := .venv
BIN := $(VENV)/bin
export PYTHON FAISS TORCH_INDEX EXTRAS VENV

.PHONY: client help setup demo test test-all check audit format clean

help:
	@echo "make demo [ONCE=1]  set up, then make data, train, serve and take a tour"
	@echo "make test           set up, then run the tests (make test-all: the slow ones too)"
	@echo "make check          set up, then the linters, the types and the import contracts"
	@echo "make audit          look the pinned versions up in the list of known vulnerabilities (needs the internet)"
	@echo "make setup          create $(VENV) with kdiffe in it"
	@echo "make client         make kdiffe_client anew from the service's OpenAPI description"
	@echo "make format         format the code"

setup:
	@.ci/setup

demo: setup
	@$(BIN)/kdiffe demo $(if $(ONCE),--once)

test: setup
	@$(BIN)/python -m pytest

test-all: setup
	@$(BIN)/python -m pytest --slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/shellcheck .ci/setup .ci/run .ci/browser

# Not a part of `check`: it asks a service on the internet, and its answer changes without the code. Its status (make's is 2
# for any but 0; the last line names it): 0 nothing is known against any version, 1 something is, 2 nobody could be asked.
audit: setup
	@$(BIN)/python .ci/audit.py constraints.txt

client: setup
	$(BIN)/python -m tests.support.client_code

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv.lock build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
