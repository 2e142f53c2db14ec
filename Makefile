# make setup | repro | test | lint | ui | bench
PYTHON ?= python3.11
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
PORT ?= 5000

VENV := .venv
READY := $(VENV)/.ready
# Stages and DVC call `python`: let it be this repository's.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY = true

.PHONY: setup repro test lint ui bench

setup: $(READY)

$(READY): requirements.txt pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

repro: setup
	ibma repro --jobs $(JOBS)
	@echo "report: reports/$$(python -c 'from ibma import params; print(params.load().profile)')/index.html"

test: lint
	pytest

lint: setup
	ruff check .
	ruff format --check .
	mypy

ui: setup
	@ibma track
	@case "$$MLFLOW_TRACKING_URI" in \
	http*) echo "MLflow runs at $$MLFLOW_TRACKING_URI: open it in a browser" ;; \
	*) MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false python -m mlflow ui --workers 1 --port $(PORT) \
		--backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" ;; \
	esac

bench: setup
	python -m benchmarks
