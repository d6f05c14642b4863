.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A stamp is as old as the last installation, so that a changed lock renews the environment; dev.txt holds all of serve.txt.
SERVE_STAMP := $(VENV)/.serve
DEV_STAMP := $(VENV)/.dev

.PHONY: help demo serve test check bench lock fix clean

help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

demo: $(SERVE_STAMP) ## A whole call on this machine: no key, no network
	$(BIN)/switchhook demo

serve: $(SERVE_STAMP) ## Run the server in the foreground
	$(BIN)/switchhook serve

test: check ## Lint, types, walls and all tests
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

check: $(DEV_STAMP) ## Lint, types and walls
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests bench
	$(BIN)/lint-imports --no-cache

fix: $(DEV_STAMP) ## Format and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEV_STAMP) ## Measure: a table and JSON in bench/out
	$(BIN)/python -m bench

# The locks name no index; uv itself is needed only here.
lock: ## Renew the locked requirements (needs uv)
	uv pip compile -q -U --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 \
	  --extra embedded --extra espeak --extra postgres --extra build --extra dev pyproject.toml -o requirements/dev.txt
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 \
	  --extra embedded --extra espeak --extra postgres --extra build -c requirements/dev.txt pyproject.toml -o requirements/serve.txt

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(SERVE_STAMP): requirements/serve.txt pyproject.toml | $(BIN)/python
	@test $(DEV_STAMP) -nt requirements/dev.txt || $(BIN)/python -m pip install -q --require-hashes -r requirements/serve.txt
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(DEV_STAMP): requirements/dev.txt pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install -q --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

clean: ## Remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache build
