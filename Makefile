# make demo    four hospitals train together, protected, on this machine
# make up      the same federation, kept running to play with
# make test    every check and test; T=lint|unit|protocol|services|e2e|science|chaos|cluster picks tiers
# make cluster-up, cluster-down    a Kubernetes node of this machine's own, without a container engine
# make bundle IMAGES="A.tar B.tar"    images and charts in one file, for who has no internet; OUT=FILE
# make bench   speeds, as ratios measured side by side
# make lock    resolve the dependencies again

SHELL := /bin/bash
PYTHON ?= python3
VENV := build/venv
BIN := $(VENV)/bin
UV := build/bootstrap/bin/uv

# Nothing is written outside build/ and the package caches.
CACHE := $(CURDIR)/build/cache
export PYTHONPYCACHEPREFIX := $(CACHE)/pycache
export NUMBA_CACHE_DIR := $(CACHE)/numba
export MPLCONFIGDIR := $(CACHE)/matplotlib
export MYPY_CACHE_DIR := $(CACHE)/mypy
export RUFF_CACHE_DIR := $(CACHE)/ruff
export UV_NO_PROGRESS := 1

.PHONY: demo up test lint bench lock clean cluster-up cluster-down bundle

demo: $(VENV)/.demo
	@$(BIN)/koinon demo --out build/demo $(if $(STRATEGY),--strategy $(STRATEGY)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(SITES_DOWN),--sites-down $(SITES_DOWN))

up: $(VENV)/.demo
	@$(BIN)/koinon up --dir build/up

test: $(VENV)/.dev
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/run $(T)

lint: $(VENV)/.dev
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/run lint

cluster-up:
	@tests/cluster/node/build.sh
	@tests/cluster/node/images.sh base
	@tests/cluster/node/up.sh

cluster-down:
	@tests/cluster/node/down.sh

bundle: OUT ?= build/koinon-bundle.tar
bundle:
	@mkdir -p "$(dir $(OUT))"
	@PATH="$$PATH:$${XDG_CACHE_HOME:-$$HOME/.cache}/koinon/cluster/bin" $(PYTHON) charts/bundle --out "$(OUT)" $(IMAGES)

bench: $(VENV)/.dev
	@$(BIN)/python -m bench

$(UV): locks/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Koinon needs Python 3.11, 3.12 or 3.13; say which: make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip' || { echo "this Python cannot make environments: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing uv into build/bootstrap"
	@$(PYTHON) -m venv build/bootstrap
	@build/bootstrap/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement locks/uv.txt
	@touch $@

# `uv pip sync` removes what a lock does not name, so one stamp undoes the other.
$(VENV)/.demo: $(UV) locks/demo.txt pyproject.toml
	@if test -e $(VENV)/.dev; then $(MAKE) --no-print-directory $(VENV)/.dev; else $(MAKE) --no-print-directory install LOCK=demo; fi
	@touch $@

$(VENV)/.dev: $(UV) locks/dev.txt pyproject.toml
	@$(MAKE) --no-print-directory install LOCK=dev

.PHONY: install
install:
	@echo "installing locks/$(LOCK).txt into $(VENV) (about 6 GB with PyTorch's libraries; minutes the first time)"
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@$(UV) pip sync --quiet --require-hashes --python $(BIN)/python locks/$(LOCK).txt
	@$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $(VENV)/.$(LOCK)

COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
  --custom-compile-command "make lock"
DEMO := --extra gateway --extra agent --extra worker --extra demo
lock: $(UV)
	@$(COMPILE) $(UPGRADE) $(DEMO) --extra operator --extra kuberay pyproject.toml locks/dev.in -o locks/dev.txt
	@$(COMPILE) -c locks/dev.txt $(DEMO) pyproject.toml locks/build.in -o locks/demo.txt
	@for image in gateway agent operator "worker --extra kuberay"; do \
	  $(COMPILE) -c locks/dev.txt --extra $$image pyproject.toml -o locks/$${image%% *}.txt; done
	@$(COMPILE) -c locks/dev.txt locks/image.in -o locks/image.txt
	@echo uv | $(COMPILE) - -o locks/uv.txt

clean:
	@rm -rf build
