# Every target makes .venv first if it is missing, so each works in a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DIR ?= outputs
OUT ?= report

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check train report tensorboard bench docs clean

help:  ## lists the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[parallel,ray,slurm,optuna,export,wandb,mlflow,dev]'
	touch $@

demo: $(READY)  ## trains a ResNet56v2 on handwritten digits, about two minutes on two cores
	$(BIN)/python train.py experiment=demo
	$(BIN)/resnetlab report outputs/demo

test: $(READY)  ## the tests, about five minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal -m 'not slow and not gpu'

test-slow: $(READY)  ## the tests that take longer, and those that need a GPU if there is one
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m 'slow or gpu'

check: $(READY)  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

train: $(READY)  ## the main experiment; make train ARGS="wd=0.1 seeds=5" overrides it
	$(BIN)/python train.py $(ARGS)

report: $(READY)  ## a table of the runs in DIR (default: outputs), and a page of them in OUT (default: report)
	$(BIN)/resnetlab report $(DIR) --out $(OUT)

tensorboard: $(READY)  ## TensorBoard on the runs in DIR (default: outputs)
	$(BIN)/tensorboard --logdir $(DIR)

bench: $(READY)  ## the lab against others and against the machine, 11 minutes; make bench ARGS="--names bare,lab_eager"
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(READY)  ## the documentation as a site, in site/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	rm -rf build/docs site && mkdir -p build/docs
	tar cf - *.md LICENSE CITATION.cff docs/*.md docs/*.ipynb conf/experiment/first-study.yaml results/*/*.png results/*/*/*.png | tar xf - -C build/docs
	$(BIN)/zensical build

clean:  ## removes .venv and caches; outputs and data stay
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
