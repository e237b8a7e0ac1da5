# make demo: everything from nothing to a table.   make test, make lint: what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DELETE_ON_ERROR:
.PHONY: demo test lint format schema

demo: $(VENV)/installed
	$(BIN)/snakemake --configfile params/demo.yaml
	@cat results/demo/table.md

test: $(VENV)/installed
	$(BIN)/pytest

lint: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check workflow
	$(BIN)/mypy
	$(BIN)/snakemake --lint

format: $(VENV)/installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt workflow

schema: params/schema.json

params/schema.json: eqco/params.py $(VENV)/installed
	$(BIN)/python -m eqco schema > $@

$(VENV)/installed: pyproject.toml constraints.txt
	@sh .ci/python.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@
