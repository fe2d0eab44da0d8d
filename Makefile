# The two commands of the README: `make demo` and `make test`. Both set up their own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DIGITS := examples/data/digits
RUN := runs/digits

.PHONY: demo test lint fmt bench bench-gpu clean

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

# Handwritten digits, learnt by a network of 15 lines with nothing but ONNX Runtime.
demo: $(VENV)/.ready
	$(BIN)/nnspec summary examples/digits.nn
	@echo
	$(BIN)/nnspec train examples/digits.nn --data $(DIGITS)-train.npz --validation $(DIGITS)-test.npz --out $(RUN)
	@echo
	$(BIN)/nnspec eval examples/digits.nn --weights $(RUN)/weights.safetensors --data $(DIGITS)-test.npz
	$(BIN)/nnspec export examples/digits.nn --weights $(RUN)/weights.safetensors -o $(RUN)/digits.onnx

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n 2 -q

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The release of PyTorch that the figures in the README are of; an index may have a build of it without CUDA.
$(VENV)/.bench: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

$(VENV)/.bench-gpu: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --editable '.[bench,cuda]'
	touch $@

# ARGS may say less: `make bench ARGS='--only mlp --no-summary'`.
bench: $(VENV)/.bench
	mkdir -p runs
	$(BIN)/python -m tests.benchmarks --markdown runs/bench.md --json runs/bench.json $(ARGS)

# CUDA's libraries and the peers' builds for it are large: they are fetched only where there is a GPU to run them on.
bench-gpu: $(VENV)/.ready
	@if command -v nvidia-smi > /dev/null; then $(MAKE) $(VENV)/.bench-gpu; fi
	@mkdir -p runs
	@$(BIN)/python -m tests.benchmarks --gpu --markdown runs/bench-gpu.md --json runs/bench-gpu.json $(ARGS)

fmt: $(VENV)/.ready
	$(BIN)/ruff check --fix --select I .

clean:
	rm -rf $(VENV) runs build dist
