# Two commands for a fresh machine: `make demo` and `make test`. Each sets up all that it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DEMO := demo

.PHONY: help demo test lint configs faults bench gpu clean

help:
	@echo "make demo   synthetic cohort -> pretrain -> train -> evaluate -> report.html, about 5 minutes on two cores"
	@echo "make test   the test suite"
	@echo "make lint   ruff and mypy"
	@echo "make configs writes the bundle's configs from their sources in bundle/configs/src"
	@echo "make faults tries every fault of docs/reliability.md (kills, full disks, dead servers ...) and writes its table"
	@echo "make bench  all benchmarks, quick, and one table of what is claimed; sets up Keras in .venv-keras to compare with"
	@echo "make gpu    every test of the CUDA path and the GPU benchmarks, on a machine with a CUDA GPU; one table of all"
	@echo "make clean  remove .venv and the demo's output"

$(STAMP): pyproject.toml constraints.txt
	@echo "installing into .venv (a minute or more, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target .venv/share/monai-cae/deepbet deepbet==1.0.2  # its weights alone are used: docs/prepare.md
	@touch $@

$(DEMO)/phantom/dataset_description.json: $(STAMP)
	@$(BIN)/monai-cae phantom $(DEMO)/phantom --subjects 60 --seed 0

demo: $(STAMP) | $(DEMO)/phantom/dataset_description.json
	@$(BIN)/python -W ignore::UserWarning -m monai.bundle run training \
		--config_file "['bundle/configs/experiment.yaml','bundle/configs/with_phantom.yaml']" \
		--dataset_dir $(DEMO)/phantom --output_dir $(DEMO)/output --overwrite true

test: $(STAMP)
	@$(BIN)/python -m pytest

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

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
	rm -rf .venv .venv-keras $(DEMO)
