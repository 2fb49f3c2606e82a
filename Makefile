# Two commands for a fresh machine: `make demo` and `make test`. Each sets up all that it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DEMO := demo

.PHONY: help demo test lint clean

help:
	@echo "make demo   synthetic cohort -> pretrain -> train -> evaluate, a few minutes on two cores"
	@echo "make test   the test suite"
	@echo "make lint   ruff and mypy"
	@echo "make clean  remove .venv and the demo's output"

$(STAMP): pyproject.toml constraints.txt
	@echo "installing into .venv (a minute or more, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(DEMO)/phantom/dataset_description.json: $(STAMP)
	@$(BIN)/monai-cae phantom $(DEMO)/phantom --subjects 60 --seed 0

demo: $(STAMP) | $(DEMO)/phantom/dataset_description.json
	@$(BIN)/python -W ignore::UserWarning -m monai.bundle run training \
		--config_file "['bundle/configs/experiment.yaml','bundle/configs/with_phantom.yaml']" \
		--dataset_dir $(DEMO)/phantom --output_dir $(DEMO)/output

test: $(STAMP)
	@$(BIN)/python -m pytest

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf .venv $(DEMO)
