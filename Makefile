# Every target sets up what it needs: an environment in .venv, built once and again when the pinned packages change.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

# What builds and runs containers (docker, podman; buildah builds), more arguments for its build, and which images.
ENGINE ?= docker
BUILD ?=
TARGETS ?= cpu gpu

# The interpreter for .venv: PYTHON, if given, else the first that will do.
PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.DEFAULT_GOAL := help
.PHONY: run test lint bench ui compile images run-containers data lock sbom scan clean help

run: $(READY) ## Prune the digits while training on them; more with ARGS="--keep 0.5", see .venv/bin/secateur run --help
	@$(BIN)/secateur data
	@$(BIN)/secateur run $(ARGS)

# Hundreds of processes import the same packages: their bytecode is kept, whatever the environment asks for.
test: $(READY) ## Run the tests, with coverage
	@PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile \
		--no-loadscope-reorder --cov --cov-report=term $(ARGS)

lint: $(READY) ## Check style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(READY) ## Compare methods on the digits; with ARGS="--recipe cpu --data DIR" on CIFAR-10 (see benchmarks/README.md)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.grid $(ARGS)

ui: $(READY) ## Open MLflow on the results, at http://127.0.0.1:5000
	@test -f .secateur/mlflow.db || { echo "error: there are no results yet; begin with: make run" >&2; exit 2; }
	@MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow ui --workers 1 \
		--backend-store-uri "sqlite:///$(CURDIR)/.secateur/mlflow.db" $(ARGS)

compile: $(READY) ## Compile the pipeline for a Kubeflow cluster, to dist/secateur-prune.yaml
	@$(BIN)/secateur compile -o dist/secateur-prune.yaml

images: $(READY) ## Build the container images; with ENGINE=podman, TARGETS=cpu, BUILD="--build-arg BASE=..."
	@ENGINE="$(ENGINE)" BUILD="$(BUILD)" images/build.sh "$$($(BIN)/python -m secateur.components.images)" $(TARGETS)

run-containers: TARGETS := cpu
run-containers: images ## Run the pipeline with each step in a container, and compare the mask with that of processes
	@$(BIN)/python -m secateur.pipelines.containers "$$($(BIN)/python -m secateur.components.images)-cpu" $(ARGS)

data: $(READY) ## Build the default data set in data/, and check it against data.dvc
	@$(BIN)/secateur data

lock: $(READY) ## Pin the newest packages that fit pyproject.toml, in requirements.lock
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --group dev --all-extras \
		--no-annotate --no-header pyproject.toml -o requirements.lock

sbom: $(READY) ## List what is installed as a CycloneDX bill of materials, in dist/sbom.json
	@mkdir -p dist
	@$(BIN)/uv tool run --quiet --from 'cyclonedx-bom>=7,<8' cyclonedx-py environment --output-reproducible \
		--pyproject pyproject.toml --output-file dist/sbom.json $(VENV)
	@echo dist/sbom.json

scan: $(READY) ## Look the locked packages up in PyPI's list of vulnerabilities; it needs the public PyPI
	@mkdir -p dist; rm -f dist/scan.txt
	@$(BIN)/uv tool run --quiet --from 'pip-audit>=2.9,<3' pip-audit --strict --progress-spinner off --disable-pip \
		--require-hashes --requirement requirements.lock --output dist/scan.txt $(ARGS) 2> dist/scan.log \
		&& cat dist/scan.log && exit; \
	if [ -s dist/scan.txt ]; then cat dist/scan.log dist/scan.txt; else \
		echo "error: the list of vulnerabilities must be in reach, got: $$(tail -n 1 dist/scan.log)" >&2; \
	fi; exit 1

clean: ## Remove the environment and all caches; what runs made, in .secateur, stays
	rm -rf $(VENV) dist .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-15s%s\n", $$1, $$2 }' Makefile

# uv comes from the lock file too; like pip, it has settings of its own for an index that is not the public one.
$(READY): requirements.lock pyproject.toml
	@python=""; for p in $(CANDIDATES); do "$$p" -c "$(FITS)" 2>/dev/null && python="$$p" && break; done; \
	if [ -z "$$python" ]; then \
		echo "error: Python must be 3.11, 3.12 or 3.13, got none of these as: $(CANDIDATES); name one by make PYTHON=..." >&2; \
		exit 2; \
	fi; \
	echo "setting up $(VENV) with $$($$python -V)"; \
	"$$python" -m venv $(VENV)
	@awk '/^[^ ]/ { uv = /^uv==/ } uv' requirements.lock > $(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@
