# make demo: everything from nothing to a table.   make test, make lint: what CI runs.
# make slurm-up, make slurm-down: a cluster to try the grid on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SLURM ?= /tmp/eqco-slurm
EXECUTOR := plugins/snakemake-executor-plugin-submitit

# uv, if it is on the path: it is faster, and chooses torch's build by this machine's driver, or for the
# CPU. `make TORCH_BACKEND=cpu` names one, `make TORCH_BACKEND=` takes pip's, `make UV=` is pip itself.
# The one that `make lock` installs does not count.
UV ?= $(filter-out $(abspath $(BIN))/%,$(shell command -v uv))
TORCH_BACKEND ?= $(if $(UV),auto)
ifneq ($(UV),)
INSTALL = $(UV) pip install --python $(BIN)/python$(TORCH_BACKEND:%= --torch-backend=%)
else ifeq ($(TORCH_BACKEND),)
INSTALL = $(BIN)/pip install
else
$(error TORCH_BACKEND=$(TORCH_BACKEND): only uv chooses a build of torch, and it is not on the path)
endif
INSTALL += --constraint constraints.txt
ifeq ($(TORCH_BACKEND),)
# a build that uv chooses has CUDA libraries of its own, or none
INSTALL += --constraint constraints-cuda.txt
endif

.DELETE_ON_ERROR:
.PHONY: demo test test-slow test-all lint bench claims docs reference format schema lock slurm-up slurm-down

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
	$(BIN)/python -m eqco claims README.md results/README.md docs/findings.md

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

# The pipeline's pins with the hashes of their files: docs/install.md.
lock: requirements.txt

requirements.txt: pyproject.toml constraints.txt constraints-cuda.txt $(VENV)/installed-lock
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate \
		--constraint constraints.txt --constraint constraints-cuda.txt --output-file $@ pyproject.toml

$(VENV)/installed: pyproject.toml constraints.txt constraints-cuda.txt
	@sh .ci/python.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	@touch $@

# Tools of a dependency group of pyproject.toml; pip knows --group since 25.1.
$(VENV)/installed-%: $(VENV)/installed
	$(INSTALL) --quiet 'pip>=25.1'
	$(INSTALL) --group $*
	@touch $@
