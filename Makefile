# The two commands of the README: `make demo` and `make test`. Both set up their own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint fmt bench clean

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: $(VENV)/.ready
	$(BIN)/nnspec summary examples/digits.nn
	$(BIN)/nnspec train examples/digits.nn --data examples/data/digits-train.npz --validation examples/data/digits-test.npz --out runs/digits
	$(BIN)/nnspec export examples/digits.nn --weights runs/digits/weights.safetensors -o runs/digits/digits.onnx
	$(BIN)/nnspec eval examples/digits.nn --weights runs/digits/weights.safetensors --data examples/data/digits-test.npz

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n 2 -q

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(VENV)/.ready
	$(BIN)/ruff check --fix --select I .

clean:
	rm -rf $(VENV) runs build dist
