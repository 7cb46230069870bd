# Everything installs into .venv; nothing outside this folder is touched, except that `make test` asks apt for Mosquitto.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
APT_PACKAGES := mosquitto mosquitto-clients openssl postgresql systemd
DEMO ?=
SECONDS ?= 60

.PHONY: demo test check fuzz soak clean

demo: $(VENV)/.demo ## watch a fleet learn, in under a minute
	$(BIN)/edgeflock demo $(DEMO)

test: $(VENV)/.test system-packages check ## everything that CI runs
	$(BIN)/python -m pytest

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(VENV)/.test ## coverage-guided, over every decoder of the protocol
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS)

soak: $(VENV)/.test system-packages ## what takes too long for CI
	$(BIN)/python -m pytest tests/soak
	$(BIN)/python -m benchmarks.first_flock --seeds 5
	$(BIN)/python -m tests.fuzz.run --seconds 3600

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
