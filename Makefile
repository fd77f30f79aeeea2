# Each target sets up what it needs in .venv and is quick when nothing is missing.
PYTHON ?= python3
UV_VERSION = 0.13.8
BIN = .venv/bin
EXTRAS = .venv-extras/bin
SERVE = .venv-serve/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS = 1

.DEFAULT_GOAL = help
.PHONY: help setup repro serve test test-extras results lint format bench bench-peers chaos lock \
	evidently clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

repro: .venv/ready .venv-serve/ready ## run the pipeline: from the table to models/final (dvc repro)
	@python -m ops.mend && python -m ops.check && python -m dvc repro && python -m ops.show

serve: .venv-serve/ready ## answer predictions on http://127.0.0.1:8080 from models/final
	@if grep -qs '"format": "skops"' $${MODEL_FOLDER:-models/final}/model.json; then \
		$(INSTALL) --python $(SERVE)/python --requirement serve/requirements-skops.txt; fi
	@$(SERVE)/python -m gunicorn --config python:serve.gunicorn_conf

test: .venv/ready-dev .venv/chromium .venv/strace ## run the tests
	@python -m pytest -n 2 --dist loadscope -m "not extras"

test-extras: .venv-extras/ready .venv-evidently/ready .venv/chromium ## run the tests of the optional requirements
	@PATH="$(CURDIR)/$(EXTRAS):$$PATH" python -m pytest -m extras

results: .venv/ready ## run all stages anew and compare with the committed results
	@python .ci/check_results.py

lint: .venv/ready-dev ## check style, YAML and file sizes, as the pre-commit hooks do
	@python -m pre_commit run --all-files --show-diff-on-failure

format: .venv/ready-dev ## write the code in the house's form
	@ruff check --fix . && ruff format .

evidently: .venv-evidently/ready ## set up .venv-evidently, for --evidently of ops.monitor and ops.drift

setup: .venv/ready-dev ## set up the environment of a developer, with git hooks
	@python -m pre_commit install --install-hooks

bench: .venv/ready-dev .venv-serve/ready .venv/wrk ## measure speed; takes long, writes benchmarks/results.md
	@python -m benchmarks

bench-peers: .venv/ready-dev .venv-serve/ready .venv/wrk ## measure MLflow's and BentoML's servers beside ours; installs them
	@python -m benchmarks --only peers

chaos: .venv/ready-dev .venv-serve/ready ## kill runs, servers and databases, and see that nothing is lost; takes long
	@python -m benchmarks.chaos_repro
	@python -m benchmarks --only faults

lock: .venv/bin/uv ## pin all requirements anew, so that every set fits every other
	@uv pip compile $(LOCK) requirements-dev.in requirements-boost.in requirements-mlflow.in \
		serve/requirements-skops.in --output-file .venv/all.txt
	@for name in requirements requirements-dev requirements-boost requirements-mlflow \
		serve/requirements serve/requirements-skops; do \
		uv pip compile $(LOCK) $$name.in --constraints .venv/all.txt --output-file $$name.txt; done
	@sed -e 's/ \\$$//' -e '/--hash/d' -e '/^pandas==/d' .venv/all.txt >.venv/but-pandas.txt
	@uv pip compile $(LOCK) requirements-evidently.in --constraints .venv/but-pandas.txt \
		--output-file requirements-evidently.txt

LOCK = --quiet --upgrade --universal --fork-strategy fewest \
	--python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock"
INSTALL = uv pip install --quiet --compile-bytecode

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), expected Python 3.11 to 3.13." \
			"Name another: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { [ "$$(id -u)" = 0 ] && \
		echo "Installing Debian's python3-venv" && apt-get update --quiet=2 && \
		apt-get install --quiet=2 --yes python3-venv >/dev/null; } || { \
		echo "$(PYTHON) cannot make environments. On Debian: sudo apt-get install python3-venv"; exit 1; }
	@echo "Setting up .venv, once"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/ready: requirements.txt | .venv/bin/uv
	@$(INSTALL) --requirement requirements.txt
	@touch $@

.venv/ready-dev: requirements-dev.txt | .venv/bin/uv
	@$(INSTALL) --requirement requirements-dev.txt
	@touch $@ .venv/ready

# all that a server of a model needs, and nothing of the pipeline
.venv-serve/ready: serve/requirements.txt | .venv/bin/uv
	@uv venv --quiet --allow-existing .venv-serve
	@$(INSTALL) --python $(SERVE)/python --requirement serve/requirements.txt
	@touch $@

# packages of Debian: the tests of the pages drive a real browser, strace shows when the prediction
# log waits for the disk, wrk makes the load of benchmarks
.venv/chromium: READY = command -v chromium && python -m playwright --version
.venv/chromium: PACKAGES = chromium libatomic1
.venv/strace: READY = command -v strace
.venv/strace: PACKAGES = strace
.venv/wrk: READY = command -v wrk
.venv/wrk: PACKAGES = wrk
.venv/chromium .venv/strace .venv/wrk: | .venv/ready-dev
	@{ $(READY); } >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] && \
		echo "Installing Debian's $(PACKAGES)" && apt-get update --quiet=2 && \
		apt-get install --quiet=2 --yes $(PACKAGES) >/dev/null; } || { \
		echo "Missing. On Debian: sudo apt-get install $(PACKAGES)"; exit 1; }
	@touch $@

.venv-extras/ready: requirements-dev.txt requirements-boost.txt requirements-mlflow.txt | .venv/bin/uv
	@uv venv --quiet --allow-existing .venv-extras
	@$(INSTALL) --python $(EXTRAS)/python --requirement requirements-dev.txt \
		--requirement requirements-boost.txt --requirement requirements-mlflow.txt
	@touch $@

# the pipeline's requirements with an older pandas, so it stands apart
.venv-evidently/ready: requirements-evidently.txt | .venv/bin/uv
	@uv venv --quiet --allow-existing .venv-evidently
	@$(INSTALL) --python .venv-evidently/bin/python --requirement requirements-evidently.txt
	@touch $@

clean: ## remove the environments; the data and models stay
	@rm -rf .venv .venv-extras .venv-serve .venv-evidently
