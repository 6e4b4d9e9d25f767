# KAT-OTel: `make demo` shows it, `make test` checks it, `make help` lists the rest.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help sbom docs docs-links demo test test-slow test-torch test-train integration lint format bench collector dist readme versions clean

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
export PYTHON

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## eight simulated workers, one hidden fault, one named culprit: under a minute
	@scripts/make-venv processor
	@$(BIN)/kat demo $(ARGS)

test: ## all tests this machine allows, and at the end what it skipped and why
	@scripts/make-venv dev
	@$(PYTEST) -q -m "not slow" $(ARGS)

test-slow: ## the tests of more than ten seconds
	@scripts/make-venv dev
	@$(PYTEST) -q -m "slow and not torch and not train" $(ARGS)

test-torch: ## a real distributed PyTorch program on CPUs; installs PyTorch (5 GB) into the cache
	@python=$$(scripts/make-torch-venv) && KAT_TORCH_PYTHON=$$python \
	    $(PYTEST) -q -m torch tests/pytorch $(ARGS)

test-train: ## a few steps of training a small model, and what servers load; installs 6 GB into the cache
	@python=$$(scripts/make-train-venv) && KAT_TRAIN_PYTHON=$$python \
	    $(PYTEST) -q -m train tests/adapt $(ARGS)

integration: collector ## the tests against a real collector, Jaeger and Kafka
	@scripts/make-venv dev
	@$(PYTEST) -q -m integration $(ARGS)

lint: ## ruff, pyright (strict on the package), layers
	@scripts/make-venv dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

format: ## let ruff mend what it can
	@scripts/make-venv dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: ## every benchmark, one after the other, with its figures
	@scripts/make-venv dev
	@set -e; for bench in bench/*.py; do echo "== $$bench"; $(BIN)/python "$$bench"; done

collector: ## build the two collectors and Jaeger of the integration tests (needs Go)
	@collector-config/build.sh all

dist: ## wheel and source archive into dist/
	@scripts/make-venv dev
	$(BIN)/python -m build --outdir dist

sbom: ## what a release brings along, and its licences, into dist/
	@scripts/make-sbom

docs: ## the documentation as a site in docs/_build/html; a warning is an error
	@scripts/make-venv dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

docs-links: ## ask every external link of the site whether it is there; needs the internet
	@scripts/make-venv dev
	$(BIN)/python -m sphinx -q -b linkcheck docs docs/_build/links

readme: ## put the real output of kat analyze into README.md (needs the real traces)
	@scripts/make-venv processor
	@$(BIN)/python scripts/readme_output.py
	@$(BIN)/python scripts/tutorial_output.py

versions: ## write requirements/ci.txt anew, with the newest versions that pyproject.toml allows
	@python3 -m venv .cache/uv && .cache/uv/bin/python -m pip install --quiet uv
	UV_PYTHON_DOWNLOADS=never .cache/uv/bin/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 \
	    --extra dev --no-header --no-annotate --output-file requirements/ci.txt
	@scripts/make-venv dev && images/pin-packages

clean: ## remove the environment and the caches
	rm -rf .venv .cache dist build out docs/_build docs/repository .pytest_cache .ruff_cache .hypothesis
