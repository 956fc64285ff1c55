# Every target does its own set-up in .venv on a fresh machine, and installs only what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# TORCH=cpu: on Linux, where PyPI's torch brings CUDA (3 GB to download instead of 200 MB).
INDEX := $(if $(filter cpu,$(TORCH)),--extra-index-url https://download.pytorch.org/whl/cpu)

.NOTPARALLEL:
.PHONY: help setup site demo demo-speech demo-lm test test-fast lint format types docs clean

help:
	@echo "make demo    train, forward and search on handwritten digits (below 5 minutes after the set-up)"
	@echo "make demo-speech | demo-lm    spoken numbers (needs espeak-ng) | a language model of Python's sources"
	@echo "make test    the test suite        make test-fast    most of it, in a minute and a half"
	@echo "make site    the documentation as web pages, in build/site"
	@echo "make lint | types | format | docs | clean"
	@echo "make setup   all that these install, in .venv"
	@echo "TORCH=cpu    installs torch without CUDA        PYTHON=python3.13    another Python"

setup: $(READY)dev
	@touch $(READY)demo $(READY)lint  # whose packages these include

# What each needs: a stamp is newer than both files exactly when .venv holds what they ask for.
PACKAGES_demo := -e ".[demo]"
PACKAGES_dev := -e ".[dev,demo,audio,text,huggingface,fast,bleu,export,plot,thinc,optimizers,learned-lr]"
PACKAGES_lint := "ruff>=0.8"
PACKAGES_site := "mkdocs-material>=9.5,<10"

$(READY)%: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	@echo 'set-up in $(VENV) (once): pip install $(PACKAGES_$*)'
	@$(BIN)/python -m pip install $(INDEX) -c constraints.txt $(PACKAGES_$*)
	@touch $@

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "Python 3.10 or newer is needed, but '$(PYTHON)' is missing or older; choose another: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: venv or ensurepip is missing (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# ARGS: --model ctc, --long, --short
demo: $(READY)demo
	$(BIN)/python demos/digits/run.py $(ARGS)

# ARGS: --short
demo-speech: $(READY)demo
	$(BIN)/python demos/spoken-digits/run.py $(ARGS)

demo-lm: $(READY)demo
	$(BIN)/python demos/char-lm/run.py $(ARGS)

# Two processes with one thread each: the suite's tensors are too small for more.
test: $(READY)dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 $(ARGS)

# Below 90 seconds on two idle cores: all but the tests that start programs or train for long.
test-fast: $(READY)dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow" $(ARGS)

lint: $(READY)lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Once more as on Windows, which lacks much of `os` and `signal`.
types: $(READY)dev
	$(BIN)/mypy
	$(BIN)/mypy --platform win32

# From the code's own tables: every layer class with its options and defaults; what is supported and what is refused;
# the names of returnn.frontend.
docs: $(READY)dev
	$(BIN)/python tools/layer_reference.py docs/layers.md
	$(BIN)/python tools/option_reference.py docs/options.md docs/config.schema.json
	$(BIN)/python tools/loss_reference.py docs/losses.md
	$(BIN)/python tools/compatibility.py docs/usage_counts.txt docs/compatibility.md
	$(BIN)/python tools/frontend_names.py docs/frontend.md
	$(BIN)/python tools/room_sizes.py ARCHITECTURE.md

# The documentation as web pages, in build/site; a dead link is an error.
PAGES := README.md ARCHITECTURE.md CHANGELOG.md LICENSE docs configs demos benchmarks

site: $(READY)site
	@rm -rf build/pages && mkdir -p build/pages
	@git ls-files -z --cached --others --exclude-standard -- $(PAGES) | tar -cf - --null -T - | tar -xf - -C build/pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
