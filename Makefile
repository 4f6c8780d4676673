# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_DATA ?= data/builtin
DEMO_OUT ?= results/pmam_demo

# Waiting threads that spin steal the cores of those that work.
export OMP_WAIT_POLICY := passive

.PHONY: demo test lint types contract pytest install docs clean

install: $(STAMP)

# pip brings uv, uv the rest: hard links from its cache, well under a minute.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/pmam soundscapes $(DEMO_DATA)
	$(BIN)/python recipes/DESED/train.py hparams/pmam_demo.yaml --data_folder $(DEMO_DATA) --output_folder $(DEMO_OUT)

test: lint types contract pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

contract: $(STAMP)
	$(BIN)/lint-imports

pytest: $(STAMP)
	$(BIN)/python -m pytest

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

clean:
	rm -rf results data/builtin site build dist
