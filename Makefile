# `make demo` and `make test` are all one needs: each does its own set-up in .venv on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup site demo demo-speech demo-lm test test-fast lint format types docs clean

help:
	@echo "make demo    train, forward and search on handwritten digits (below 5 minutes after the set-up)"
	@echo "make demo-speech | demo-lm    spoken numbers (needs espeak-ng) | a language model of Python's sources"
	@echo "make test    the test suite        make test-fast    most of it, in a minute and a half"
	@echo "make site    the documentation as web pages, in build/site"
	@echo "make lint | types | format | docs | setup | clean"

setup: $(READY)

# The stamp is newer than both files exactly when .venv holds what they ask for.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "Python 3.10 or newer is needed, but '$(PYTHON)' is missing or older; choose another: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: venv or ensurepip is missing (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "set-up in $(VENV) (once; it installs torch, which takes some minutes)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,plot,thinc,optimizers,learned-lr]"
	@touch $@

# ARGS: --model ctc, --long, --short
demo: $(READY)
	$(BIN)/python demos/digits/run.py $(ARGS)

# ARGS: --short
demo-speech: $(READY)
	$(BIN)/python demos/spoken-digits/run.py $(ARGS)

demo-lm: $(READY)
	$(BIN)/python demos/char-lm/run.py $(ARGS)

# Two processes with one thread each: the suite's tensors are too small for more.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 $(ARGS)

# Below 90 seconds on two idle cores: all but the tests that start programs or train for long.
test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow" $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Once more as on Windows, which lacks much of `os` and `signal`.
types: $(READY)
	$(BIN)/mypy
	$(BIN)/mypy --platform win32

# From the code's own tables: every layer class with its options and defaults; what is supported and what is refused;
# the names of returnn.frontend.
docs: $(READY)
	$(BIN)/python tools/layer_reference.py docs/layers.md
	$(BIN)/python tools/option_reference.py docs/options.md docs/config.schema.json
	$(BIN)/python -m returnn_lite.tools.class_help docs/losses.md
	$(BIN)/python tools/compatibility.py docs/usage_counts.txt docs/compatibility.md
	$(BIN)/python tools/frontend_names.py docs/frontend.md
	$(BIN)/python tools/room_sizes.py ARCHITECTURE.md

# The documentation as web pages, in build/site; a dead link is an error.
PAGES := README.md ARCHITECTURE.md CHANGELOG.md LICENSE docs configs demos benchmarks
SITE_READY := $(VENV)/.ready-site

site: $(SITE_READY)
	@rm -rf build/pages && mkdir -p build/pages
	@git ls-files -z --cached --others --exclude-standard -- $(PAGES) | tar -cf - --null -T - | tar -xf - -C build/pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(SITE_READY): $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt "mkdocs-material>=9.5,<10"
	@touch $@

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
