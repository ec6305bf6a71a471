# Every target sets up first; the second time that takes no time.
SHELL := /bin/bash
BIN := .venv/bin
STAMP := .venv/.set-up
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help setup demo up test faults lint fmt schemas openapi fuzz bench lock

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install everything into .venv

$(STAMP): requirements.lock tools/bootstrap.lock tools/setup.sh tools/registry.sh pyproject.toml
	@PYTHON="$(PYTHON)" tools/setup.sh
	@touch $@

demo: setup ## Train one submission on four folds, on a real Kafka and a real Postgres
	@$(BIN)/datarun demo

up: setup ## Run the whole stack here until Ctrl-C
	@exec $(BIN)/datarun up

test: setup ## Run every test, two files at a time: most of them wait for something
	@$(BIN)/python -m pytest -n 2 --dist loadfile

faults: setup ## Kill and stop runners, projectors and brokers, and look at what is left
	@$(BIN)/python -m pytest tests/faults

lint: setup ## Check style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: setup ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

schemas: setup ## Write what is published about the events, or refuse a breaking change
	@$(BIN)/datarun schemas write

openapi: setup ## Write schemas/openapi.json anew from the code
	@$(BIN)/python -m services.ingest.v1 > schemas/openapi.json.new && mv schemas/openapi.json.new schemas/openapi.json

fuzz: setup ## Send thousands of made-up requests to /v1
	@DATARUN_FUZZ_EXAMPLES=$(or $(EXAMPLES),120) $(BIN)/python -m pytest tests/contract/test_v1_fuzz.py --timeout 1800

bench: setup ## Measure
	@$(BIN)/python -m benchmarks

lock: setup ## Pin the dependencies anew: make lock UPGRADE=--upgrade
	@tools/lock.sh $(UPGRADE)
