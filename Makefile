# make demo: everything from nothing to a table.   make test, make lint: what CI runs.
# make slurm-up, make slurm-down: a cluster to try the grid on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SLURM ?= /tmp/eqco-slurm
EXECUTOR := plugins/snakemake-executor-plugin-submitit

.DELETE_ON_ERROR:
.PHONY: demo test test-slow test-all lint bench claims docs reference format schema slurm-up slurm-down

demo: $(VENV)/installed
	$(BIN)/snakemake --configfile params/demo.yaml
	@cat results/demo/summary.md

# Every kind of check; test-slow: further cases of some.
PYTEST = PATH="$$PATH:/usr/sbin" $(BIN)/pytest --numprocesses 4 --durations 10

test: $(VENV)/installed-test
	sh .ci/packages.sh slurm chromium
	$(PYTEST) --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: $(VENV)/installed-test
	sh .ci/packages.sh slurm chromium
	$(PYTEST) --dist worksteal -m slow

test-all: test test-slow

# A SLURM of two nodes on this machine, to try `snakemake --profile slurm` on; needs root.
slurm-up: $(VENV)/installed
	sh .ci/packages.sh slurm
	PATH="$$PATH:/usr/sbin" $(BIN)/python $(EXECUTOR)/tests/cluster.py up $(SLURM)

slurm-down: $(VENV)/installed
	$(BIN)/python $(EXECUTOR)/tests/cluster.py down $(SLURM)

lint: $(VENV)/installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow eqco/template/Snakefile
	$(BIN)/mypy
	$(BIN)/lint-imports

# Measure this machine: benchmarks/results/<date>-<machine>.json and .md; half an hour, alone.
bench: $(VENV)/installed-test
	$(BIN)/python -m benchmarks machine

# The tables of claims, with their verdicts, in pages.
claims: $(VENV)/installed
	$(BIN)/python -m eqco claims results/README.md docs/findings.md

# The pages and the API as a site that needs no network: docs/site/index.html.
docs: reference $(VENV)/installed-docs
	$(BIN)/python docs/make/website.py docs/site

# The pages of keys and commands, from the program: docs/keys.md, docs/cli.md.
reference: $(VENV)/installed
	$(BIN)/python docs/make/reference.py

format: $(VENV)/installed-lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow eqco/template/Snakefile

schema: params/schema.json

params/schema.json: $(wildcard eqco/study/*.py) $(VENV)/installed
	$(BIN)/python -m eqco schema > $@

$(VENV)/installed: pyproject.toml constraints.txt
	@sh .ci/python.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --constraint constraints.txt --editable .
	@touch $@

# Tools of a dependency group of pyproject.toml; pip knows --group since 25.1.
$(VENV)/installed-%: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt 'pip>=25.1'
	$(BIN)/pip install --constraint constraints.txt --group $*
	@touch $@
