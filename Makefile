# Two commands: `make demo` and `make test`. Each sets up what it needs, under ~/.cache/kohort.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
CACHE := $(HOME)/.cache/kohort
# One environment per checkout and per set of requirements, so that checkouts do not disturb each other.
STAMP := $(shell { echo $(CURDIR); sed '/^\[tool/,$$d' pyproject.toml; cat constraints.txt; } | sha256sum | cut -c1-12)
VENV := $(CACHE)/venv/$(STAMP)
PYTHON ?= python3
BIN := $(VENV)/bin

VENV_TORCH := $(VENV)-torch

.PHONY: demo test test-torch hunt lint unit generate manifests docs pictures clean

demo: $(VENV)/.ready ## A real rollout on a local control plane, watched live
	@$(BIN)/kohort-local demo $(ARGS)

test: lint ## Everything that proves it: lint, types, layers, unit, component and end-to-end tests
	@# The others wait for processes most of the time: the unit tests take what they leave, and come last.
	@echo "unit tests run beside the others, and are printed after them"
	@nice $(BIN)/python -m pytest tests/unit > $(VENV)/unit.log 2>&1 & unit=$$!; \
	  trap "kill $$unit 2> /dev/null || true" EXIT; \
	  failed=0; $(BIN)/python -m pytest tests/component tests/e2e $(ARGS) || failed=$$?; \
	  wait $$unit || failed=$$?; cat $(VENV)/unit.log; exit $$failed

lint: $(VENV)/.ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

unit: $(VENV)/.ready ## The fast tests alone
	@$(BIN)/python -m pytest tests/unit $(ARGS)

hunt: $(VENV)/.ready ## The property tests with other examples than make test has, ten times as many of them
	@KOHORT_HUNT=1 $(BIN)/python -m pytest tests/unit -m hypothesis $(ARGS)

$(VENV)/.ready:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Kohort needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing Python packages into $(VENV) (about a minute the first time)"
	@mkdir -p $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --cache-dir $(CACHE)/pip \
	  --constraint constraints.txt --editable '.[dev]'
	@touch $@

test-torch: ## Engines of torch.export's programs: fetches torch, 3 GB, into an environment of its own
	@$(PYTHON) -m venv $(VENV_TORCH)
	@$(VENV_TORCH)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev,torch]'
	@$(VENV_TORCH)/bin/python -m pytest tests/torch $(ARGS)

generate: $(VENV)/.ready ## The CRD, and what the chart holds of the code
	@$(BIN)/python -m kohort.api.crd > crds/kohort.dev_modeldeployments.yaml
	@cp crds/kohort.dev_modeldeployments.yaml charts/kohort/files/crd.yaml
	@$(BIN)/python -m kohort.act.permissions > charts/kohort/files/permissions.yaml
	@$(BIN)/python -m kohort_local.dashboards charts/kohort/files/dashboards

manifests: $(VENV)/.ready ## The chart as plain YAML in dist/kohort.yaml
	@mkdir -p dist
	@$(BIN)/kohort-local manifests $(ARGS) > dist/kohort.yaml
	@echo "kubectl apply --server-side -f dist/kohort.yaml"

docs: $(VENV)/.ready ## The pages as a site in dist/site; what leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "dist/site/index.html"

pictures: $(VENV)/.ready ## The pictures of the web view in docs/, in a real browser
	@$(BIN)/python -m tests.bench.screenshots docs/pictures

clean: ## Remove this checkout's environment
	@rm -rf $(VENV) $(VENV_TORCH)
