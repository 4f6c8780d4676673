# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_DATA ?= data/builtin
DEMO_OUT ?= results/pmam_demo
# The second environment: the newest torch that is supported, where s3prl needs the shim of pmam_plugin/upstream/compat.py.
VENV211 ?= .venv-torch211
STAMP211 := $(VENV211)/.installed
TESTS211 ?= tests/upstream tests/integrations tests/encoders/test_s3prl.py tests/hub/test_hubconf.py \
	tests/audio tests/inference

# Test processes, one thread each: most tests are too small for more.
TEST_PROCESSES ?= 2

# Waiting threads that spin steal the cores of those that work.
export OMP_WAIT_POLICY := passive

.PHONY: demo builtin-model test test-torch211 lint types contract pytest install docs clean

install: $(STAMP)

# pip brings uv, uv the rest: hard links from its cache. Modules are compiled here, as pip does it: where Python may not
# write beside its modules (PYTHONDONTWRITEBYTECODE), every process would compile torch's anew, over a second each time.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --constraint constraints.txt --editable '.[dev]'
	touch $@

# The same pins but for torch and what belongs to it.
$(STAMP211): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV211)
	$(VENV211)/bin/python -m pip install --quiet --disable-pip-version-check uv
	grep -vE '^(torch|torchaudio|torchvision|triton|nvidia-[a-z0-9-]+)==' constraints.txt > $(VENV211)/constraints.txt
	VIRTUAL_ENV=$(CURDIR)/$(VENV211) $(VENV211)/bin/uv pip install --quiet --compile-bytecode --constraint $(VENV211)/constraints.txt \
		--editable '.[dev]' 'torch==2.11.*' 'torchaudio==2.11.*'
	touch $@

demo: $(STAMP)
	$(BIN)/pmam soundscapes $(DEMO_DATA)
	$(BIN)/python recipes/DESED/train.py hparams/pmam_demo.yaml --data_folder $(DEMO_DATA) --output_folder $(DEMO_OUT)

# Train anew the model that the package ships: make builtin-model HOUSEHOLD=folder YAMNET=yamnet.h5
builtin-model: $(STAMP)
	$(BIN)/python recipes/DESED/train.py hparams/builtin.yaml --data_folder $(HOUSEHOLD) \
		--encoder_checkpoint $(YAMNET) --output_folder results/builtin
	cp results/builtin/model/config.json results/builtin/model/model.safetensors results/builtin/model/README.md \
		pmam_plugin/checkpoints/builtin/

test: lint types contract docs pytest

test-torch211: $(STAMP211)
	$(VENV211)/bin/python -m pytest $(TESTS211)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

contract: $(STAMP)
	$(BIN)/lint-imports

# A module stays in one process, which shares its fixtures.
pytest: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder --durations 20

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

clean:
	rm -rf results data/builtin site build dist
