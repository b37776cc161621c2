# `make run` and `make test` set up everything they need in .venv; nothing else is needed to begin.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --disable-pip-version-check -q -c constraints.txt
# Without the multimodal example the llama.cpp build takes a third less time.
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF

.PHONY: run install test check docs tiny bench soak fuzz clean

run: $(VENV)/.run  ## open the shell on the built-in model
	@PATH="$(abspath $(BIN)):$$PATH" exec llmos

install: $(VENV)/.run

test: $(VENV)/.test check  ## everything that must hold: lint, types, contracts, generated docs, all tests
	$(BIN)/pytest -n logical --dist worksteal

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/lint-imports --config llmos_shell/daemon/layers.toml
	$(BIN)/python -m llmos_shell.shell.helpdoc --check docs/commands.md

docs: $(VENV)/.test  ## regenerate the generated pages
	$(BIN)/python -m llmos_shell.shell.helpdoc docs/commands.md

tiny: $(VENV)/.test  ## regenerate the built-in model: data, weights, evaluation, card
	$(BIN)/python -m llmos_shell.training.tiny

bench: $(VENV)/.bench  ## speed beside peers, written to bench/RESULTS.md
	$(BIN)/python bench/run.py

fuzz: $(VENV)/.test  ## the big forms of the property tests, and all of them on other examples than always
	LLMOS_FUZZ=200000 $(BIN)/pytest -m "fuzz or hypothesis" --timeout 3600

soak: $(VENV)/.test  ## 200 storms of signals, full pools, dying workers and daemons; 10,000 short processes
	LLMOS_SOAK=200 $(BIN)/pytest -m soak --timeout 3600

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/.run: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time this compiles llama.cpp, which takes a few minutes)"
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) torch
	$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	$(PIP) -e '.[bench]'
	@touch $@
