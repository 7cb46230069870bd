# Everything installs into .venv; nothing outside this folder is touched, except that `make test` asks apt for Mosquitto.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
APT_PACKAGES := mosquitto mosquitto-clients openssl systemd
DEMO ?=

.PHONY: demo test check soak clean

demo: $(VENV)/.demo ## watch a fleet learn, in under a minute
	$(BIN)/edgeflock demo $(DEMO)

test: $(VENV)/.test system-packages check ## everything that CI runs
	$(BIN)/python -m pytest

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.test system-packages ## slow cases once, then the same runs many times over, for hours
	$(BIN)/python -m pytest tests/soak
	$(BIN)/python -m pytest tests/crash --repeat $(or $(REPEAT),20)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

# torch first and by its version: an unpinned one brings gigabytes of CUDA.
$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --editable '.[dev,workbench]'
	@touch $@ $(VENV)/.demo

.PHONY: system-packages
system-packages:
	@sh tests/support/system_packages.sh $(APT_PACKAGES)

clean:
	rm -rf $(VENV) demo-run build dist
