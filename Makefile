# Two commands for a fresh machine: `make demo` and `make test`. Each sets up all that it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DOCS_STAMP := .venv/.installed-docs
DEMO := demo

.PHONY: help demo test test-all lint docs configs faults bench gpu clean

help:
	@echo "make demo   synthetic cohort -> pretrain -> train -> evaluate -> report.html, about 5 minutes on two cores"
	@echo "make test   the test suite"
	@echo "make test-all  the same with its slow tests, as before a release"
	@echo "make lint   ruff and mypy"
	@echo "make docs   builds the site of the documentation in docs/_build/html and runs its tutorials; a warning is an error"
	@echo "make configs writes the bundle's configs from their sources in bundle/configs/src"
	@echo "make faults tries every fault of docs/explanation/reliability.md (kills, full disks ...) and writes its table"
	@echo "make bench  all benchmarks, quick, and one table of what is claimed; sets up Keras in .venv-keras to compare with"
	@echo "make gpu    every test of the CUDA path and the GPU benchmarks, on a machine with a CUDA GPU; one table of all"
	@echo "make clean  remove .venv, the demo's output and the site"

$(STAMP): pyproject.toml constraints.txt
	@echo "installing into .venv (a minute or more, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target .venv/share/monai-cae/deepbet deepbet==1.0.2  # its weights alone are used: docs/how-to/prepare.md
	@touch $@

$(DEMO)/phantom/dataset_description.json: $(STAMP)
	@$(BIN)/monai-cae phantom $(DEMO)/phantom --subjects 60 --seed 0

demo: $(STAMP) | $(DEMO)/phantom/dataset_description.json
	@$(BIN)/python -W ignore::UserWarning -m monai.bundle run training \
		--config_file "['bundle/configs/experiment.yaml','bundle/configs/with_phantom.yaml']" \
		--dataset_dir $(DEMO)/phantom --output_dir $(DEMO)/output --overwrite true

test: $(STAMP)
	@$(BIN)/python -m pytest

test-all: $(STAMP)
	@$(BIN)/python -m pytest -m "slow or not slow"

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

$(DOCS_STAMP): $(STAMP)
	@echo "installing Sphinx into .venv (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

TUTORIALS := cache  # off: the pages without what their cells print
docs: $(DOCS_STAMP)
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --show-traceback \
		-D nb_execution_mode=$(strip $(TUTORIALS)) docs docs/_build/html
	@echo "docs/_build/html/index.html"

configs: $(STAMP)
	@$(BIN)/python tools/make_configs.py

faults: $(STAMP)
	@$(BIN)/python tools/faults.py

KERAS := .venv-keras/bin/python
$(KERAS): benchmarks/keras/requirements.txt
	@echo "installing Keras and TensorFlow into .venv-keras (a minute or more, once)"
	@$(PYTHON) -m venv .venv-keras
	@$(KERAS) -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

bench: $(STAMP) $(KERAS)
	@$(BIN)/python -W ignore::UserWarning benchmarks --quick --keras $(KERAS)

gpu: $(STAMP)
	@$(BIN)/python tools/gpu.py

clean:
	rm -rf .venv .venv-keras $(DEMO) docs/_build
