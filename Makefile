# make setup | repro | test | test-fast | test-faults | coverage | mutants | lint | ui | bench | docs
PYTHON ?= python3.11
PORT ?= 5000

VENV := .venv
READY := $(VENV)/.ready
# Stages and DVC call `python`: let it be this repository's.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY = true

# What is installed stays; a new environment gets CUDA libraries where an NVIDIA driver answers.
INSTALLED := $(shell cat $(READY) 2>/dev/null)
DRIVER := $(shell nvidia-smi >/dev/null 2>&1 && echo yes)
REQUIREMENTS ?= $(or $(INSTALLED),$(if $(DRIVER),requirements.txt,requirements-cpu.txt))

.PHONY: setup repro test test-fast test-faults coverage mutants lint ui bench docs

setup: $(READY)

ifneq ($(REQUIREMENTS),$(INSTALLED))
.PHONY: $(READY)
endif
$(READY): $(REQUIREMENTS) pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@python -m pip uninstall -qq --yes faiss-cpu faiss-gpu # they would share one folder
	# bytecode comes at first import: compiling all of it takes 0.5 GB
	python -m pip install --quiet --disable-pip-version-check --no-compile -r $(REQUIREMENTS)
	python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@echo $(REQUIREMENTS) > $@

# Sources that came as an archive have no git, which DVC otherwise asks for.
repro: setup
	@test -e .git || dvc config --local core.no_scm true
	dvc repro --keep-going
	@echo "report: reports/$$(python -c 'from ibma import params; print(params.load().profile)')/index.html"

test: lint
	pytest -n auto --dist worksteal

# Without the pipeline and without training of more than a second.
test-fast: setup
	pytest -n auto --dist worksteal -m "not slow"

# Damaged and lying files, kills, system errors, by the thousand; ends with a table of figures.
test-faults: setup
	pytest -n 2 --dist worksteal -m faults tests/faults

# Lines of src/ that the whole suite reaches, in its own processes and in those that it starts.
coverage: setup
	coverage erase
	coverage run -m pytest -n auto --dist worksteal
	coverage combine --quiet
	coverage report

# Changes the mathematics one spot at a time; `mutmut results` lists what no test noticed.
mutants: setup
	python -m pip install --quiet --disable-pip-version-check mutmut==3.8.1
	OMP_NUM_THREADS=1 mutmut run

lint: setup
	ruff check .
	ruff format --check .
	mypy

ui: setup
	@ibma track
	@case "$$MLFLOW_TRACKING_URI" in \
	http*) ;; \
	*) MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false python -m mlflow ui --workers 1 --port $(PORT) \
		--backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" ;; \
	esac

bench: setup
	python -m benchmarks

# The documentation as a site, site/index.html; a dead link stops it.
docs: setup
	python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements-docs.txt
	python -m mkdocs build --strict
