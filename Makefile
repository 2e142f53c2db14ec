# make setup | repro | test | test-slow | test-faults | coverage | mutants | lint | ui | bench | docs
PYTHON ?= python3.11
PORT ?= 5000

VENV := .venv
READY := $(VENV)/.ready
# Stages and DVC call `python`: put this repository's first on PATH.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY = true
# Many container images set this variable. Every stage would then compile all its imports at each start.
unexport PYTHONDONTWRITEBYTECODE

# An environment keeps its requirements; a new one gets CUDA libraries if an NVIDIA driver answers.
INSTALLED := $(shell cat $(READY) 2>/dev/null)
DRIVER := $(shell nvidia-smi >/dev/null 2>&1 && echo yes)
REQUIREMENTS ?= $(or $(INSTALLED),$(if $(DRIVER),requirements.txt,requirements-cpu.txt))

.PHONY: setup repro test test-slow test-faults coverage mutants lint ui bench docs

setup: $(READY)

ifneq ($(REQUIREMENTS),$(INSTALLED))
.PHONY: $(READY)
endif
$(READY): $(REQUIREMENTS) pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@python -m pip uninstall -qq --yes faiss-cpu faiss-gpu # the two share one folder
	# Python compiles at the first import; compiling everything now would take 0.5 GB
	python -m pip install --quiet --disable-pip-version-check --no-compile -r $(REQUIREMENTS)
	python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@echo $(REQUIREMENTS) > $@

# Sources from an archive have no git repository, and DVC must be told so.
repro: setup
	@test -e .git || dvc config --local core.no_scm true
	dvc repro --keep-going
	@echo "report: reports/$$(python -c 'from ibma import params; print(params.load().profile)')/index.html"

# Lint, types, and all tests but those that run the pipeline or a cluster. A file's tests stay in
# one process, and share what they prepare.
test: lint
	pytest -n auto --dist loadscope -m "not slow and not faults"

# The others: copies of the pipeline, workers of Slurm and Ray, one network in several processes.
test-slow: setup
	pytest -n auto --dist loadscope -m "slow and not faults"

# Damaged and forged files, killed processes, thousands of system errors; prints a table of results.
test-faults: setup
	pytest -n 2 --dist worksteal -m faults tests/faults

# Lines of src/ that all tests reach, in their own processes and in those that they start.
coverage: setup
	coverage erase
	coverage run -m pytest -n auto --dist loadscope
	coverage combine --quiet
	coverage report

# Changes the mathematics in one place at a time; `mutmut results` lists what no test detected.
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
