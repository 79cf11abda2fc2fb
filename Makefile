# Everything happens in .venv beside this file; nothing is installed outside it and nothing needs root.
PYTHON ?= python3
# Where torch comes from. Plain PyPI gives Linux a CUDA build of several GB; PyTorch's own CPU index a small one.
TORCH_INDEX ?=
# More arguments: make test ARGS="-k ledger -x", make mutants ARGS="--only clip-off"
ARGS ?=
# Processes that `make test` divides the test files among.
WORKERS ?= 2

BIN := .venv/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip
# A PYTHON that was asked for is used or refused; only the default looks further.
ifeq ($(origin PYTHON),file)
CANDIDATES := $(PYTHON) python3.11 python3.12
else
CANDIDATES := $(PYTHON)
endif

ifneq ($(wildcard ../shared/data/.),)
WARDROUND_DATA ?= $(abspath ../shared/data)
endif
ifdef WARDROUND_DATA
export WARDROUND_DATA
endif

ifeq ($(OS),Windows_NT)
$(info wardround: error: this Makefile needs Linux or macOS)
$(error wardround: hint: on Windows use WSL2: run `wsl --install`, clone inside it, and call make there)
endif

.PHONY: help setup demo simulate test check bench soak live-soak bundle bundle-test attack mutants screenshots clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 - \2/p' Makefile
	@echo "On Linux without a GPU: make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu"

setup: .venv/.setup ## install everything a developer needs into .venv

# Whoever has run `make setup` has what the demo needs; a visitor gets the lighter set.
demo: $(if $(wildcard .venv/.setup),.venv/.setup,.venv/.demo) ## a coordinator and four hospitals as processes: TLS, approvals, secure sums
	@$(BIN)/wardround demo

simulate: $(if $(wildcard .venv/.setup),.venv/.setup,.venv/.demo) ## the same study with every hospital in one process
	@$(BIN)/wardround simulate study=heart_disease

test: .venv/.setup ## run the tests; those whose server or data is absent are skipped and counted
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

check: .venv/.setup ## lint, format, types and import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/python scripts/link.py
	$(BIN)/mypy
	PYTHONPATH=.links $(BIN)/lint-imports --no-logo

soak: .venv/.setup ## kill sites at every write and processes at random, feed the readers nonsense, repeat statistics; an hour or two
	@WARDROUND_SOAK=1 $(BIN)/python -m pytest -s tests/client/crash tests/end_to_end/test_processes.py $(ARGS)
	@WARDROUND_SOAK=1 $(BIN)/python -m pytest tests/client/connectors_emr tests/client/nonsense tests/protocol/test_nonsense.py \
	    tests/console/web/test_openapi.py --hypothesis-show-statistics $(ARGS)
	@WARDROUND_SOAK=1 $(BIN)/python -m pytest tests/strategies/statistics tests/simulations/test_shared_campaign.py $(ARGS)

live-soak: .venv/.setup ## a campaign of 90 days in minutes over processes: a week offline, a restart of everything
	@WARDROUND_SOAK=1 $(BIN)/python -m pytest -s tests/end_to_end/test_campaign_processes.py $(ARGS)

bundle: .venv/.setup ## a wheelhouse with hashes that installs a site without a network: OUT=FOLDER
	@TORCH_INDEX="$(TORCH_INDEX)" scripts/bundle $(OUT)

bundle-test: .venv/.setup ## install that wheelhouse where there is no network, and run it: OUT=FOLDER
	@PYTHON="$$($(BIN)/python -c 'import sys; print(sys._base_executable)')" scripts/bundle-test $(or $(OUT),dist/bundle)

attack: .venv/.setup ## play the attacks on secure aggregation of docs/attacks.md; NAME=... plays one
	@$(BIN)/python -m pytest -v tests/privacy/secagg/test_malicious_*.py \
	    $(if $(NAME),-k $(NAME)) $(ARGS)

mutants: .venv/.setup ## break the code on purpose and show that the tests notice
	@$(BIN)/python scripts/mutants.py $(ARGS)

bench: .venv/.setup ## run every benchmark in its quick form
	@set -e; for file in $(sort $(wildcard benchmarks/[a-z]*.py)); do \
	    echo "== $$file"; $(BIN)/python "$$file" --quick; \
	done

screenshots: .venv/.setup ## a picture of every page of the console, in screenshots/, with an index to look through
	@$(BIN)/python -m pytest -q -s -p no:warnings tests/console/web/screenshots.py $(ARGS)

clean: ## remove what make and the tools made, .venv too
	rm -rf .venv .links build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first, alone and by exact version: an open range in a later step could choose another build.
.venv/.torch: constraints.txt
	@chosen=; for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; \
	    then chosen=$$candidate; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	    found=$$("$(PYTHON)" -V 2>/dev/null) || found="not there"; \
	    echo "wardround: error: Python 3.11 or 3.12 is needed; $(PYTHON) is $$found" >&2; \
	    echo "wardround: hint: install one of them, then: make setup PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	fi; \
	echo "wardround: making .venv with $$("$$chosen" -V)"; \
	"$$chosen" -m venv .venv
	@$(PIP) install --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
	@touch $@

.venv/.setup: .venv/.torch pyproject.toml
	@echo "wardround: installing the rest (some minutes)"
	@$(PIP) install --quiet -c constraints.txt -e '.[demo,site,coordinator,console,dev]'
	@touch $@

.venv/.demo: .venv/.torch pyproject.toml
	@echo "wardround: installing what the demo needs (some minutes)"
	@$(PIP) install --quiet -c constraints.txt -e '.[demo]'
	@touch $@
