PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
MODELS := ran26 axial26 resnet26_cifar mobilenet26_cifar squeezenext26_cifar

.PHONY: demo test test-slow check install install-test clean

demo: $(VENV)/.installed
	$(BIN)/leanconv compare $(MODELS) --width 16 --data digits --output demo

test: $(VENV)/.installed-test check
	$(BIN)/python -m pytest --ignore tests/deployment
	# The runtimes' native libraries get a process of their own.
	$(BIN)/python -m pytest tests/deployment

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch goes first and alone, so that a CPU build that lies to hand is taken and nothing later replaces it.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt torch
	$(PIP) install --quiet -c constraints.txt -e ".[train,plot]"
	touch $@

# torchvision and timm are oracles of the tests only; with --no-deps they cannot replace torch.
$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install --quiet -c constraints.txt -e ".[train,superres,plot,deploy,test]"
	$(PIP) install --quiet -c constraints.txt --no-deps torchvision timm
	touch $@

clean:
	rm -rf $(VENV) demo dist build
