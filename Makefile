# All of the set-up on a fresh machine: Python 3.10 or later (with its venv module), and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# uv takes a sixth of pip's time; pip knows the index that somebody's own settings name.
comma := ,
install = $(BIN)/uv pip install --quiet --python $(BIN)/python $(1) || $(BIN)/python -m pip install --quiet $(1)

# The tests start hundreds of interpreters, each of which would compile all it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-peers test-all test-lowest venvs venv lint types check coverage docs pictures audit completions bench clean

help:
	@echo "make demo        see the main job work, on a CARTO sandbox on this computer"
	@echo "make test        run the tests"
	@echo "make test-peers  run the tests with real browsers, notebooks, terminals, clusters and Redis"
	@echo "make test-all    run the tests on every supported Python that is installed"
	@echo "make test-lowest  run the tests on the lowest Python, with the lowest versions of all packages that are allowed"
	@echo "make check       tests, lint and types, as CI runs them"
	@echo "make coverage    run the tests, and show which lines and branches none of them runs"
	@echo "make docs        build the site of the documents, in site/"
	@echo "make pictures    make the documents' pictures again, with Chromium"
	@echo "make audit       look for known vulnerabilities in what is installed"
	@echo "make completions  write the files by which shells complete the command"
	@echo "make bench       compare with carto-auth 0.2.0, side by side"
	@echo "make clean       remove what the above made"

demo: $(VENV)/.demo
	@$(BIN)/python -m carto_auth demo

# As many tests at a time as there are cores. To run some of them: .venv/bin/python -m pytest tests/test_auth.py
test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-peers: $(VENV)/.peers
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal tests/peers

test-all:
	@$(call on_each_python,test)

# On the lowest Python that is installed, with the lowest versions that pyproject.toml allows; "make test" has the newest.
test-lowest: .venv-lowest/.lowest
	.venv-lowest/bin/python -m pytest --numprocesses auto --dist worksteal

.venv-lowest/.lowest: pyproject.toml
	@rm -rf .venv-lowest
	@python=$$(.ci/pythons | sed -n '1s/[^ ]* //p'); \
		$(MAKE) --no-print-directory PYTHON="$${python:-$(PYTHON)}" VENV=.venv-lowest .venv-lowest/bin/python
	@.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
		--editable ".[carto-dw,redis,sandbox]" --group test
	@touch $@

# Installs what test-all needs.
venvs:
	@$(call on_each_python,venv)

venv: $(VENV)/.test

on_each_python = pythons=$$(.ci/pythons) || exit 1; echo "$$pythons" | grep -vE "^($(EXCEPT)) " | \
	while read -r version python; do \
		echo "== Python $$version"; \
		$(MAKE) --no-print-directory $(1) PYTHON="$$python" VENV=".venv-$$version" </dev/null || exit 1; \
	done

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.lint
	$(BIN)/mypy
	@# What is missing on the systems that nobody here can start.
	$(BIN)/mypy --platform win32
	$(BIN)/mypy --platform darwin
	$(BIN)/pyright --pythonpath $(BIN)/python
	@# What users' own type checkers see: every public name must have a type. It tells by its PATH where to look.
	@PATH="$(abspath $(BIN)):$$PATH" pyright --verifytypes carto_auth --ignoreexternal >$(VENV)/verifytypes || { \
		cat $(VENV)/verifytypes; exit 1; }
	@grep "Type completeness" $(VENV)/verifytypes

check: test lint types

coverage: $(VENV)/.peers
	@rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --cov --cov-report=term-missing:skip-covered tests

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html docs site
	@echo "Open site/index.html"

pictures: $(VENV)/.peers
	$(BIN)/python docs/pictures.py

audit: $(VENV)/.release
	$(BIN)/pip-audit --local --skip-editable

completions: $(VENV)/.lint
	for shell in bash zsh fish; do $(BIN)/shtab -s $$shell carto_auth.cli.parser >completions/carto-auth.$$shell; done

bench: | $(VENV)/bin/python
	@$(BIN)/python benchmarks/bench.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "Python 3.10 or later is needed; '$(PYTHON)' is not. Name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "Python's venv module is needed (Debian, Ubuntu: apt install python3-venv)." >&2; \
		rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" "uv>=0.8"

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "Installing carto-auth and its sandbox into $(VENV) ..."
	@$(call install,--editable ".[carto-dw$(comma)sandbox]")
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.demo
	@$(call install,--group test)
	@touch $@

$(VENV)/.peers: pyproject.toml $(VENV)/.test
	@$(call install,--group peers)
	@touch $@

$(VENV)/.lint: pyproject.toml $(VENV)/.test
	@$(call install,--group lint)
	@touch $@

$(VENV)/.docs: pyproject.toml $(VENV)/.demo
	@$(call install,--group docs)
	@touch $@

$(VENV)/.release: pyproject.toml $(VENV)/.demo
	@$(call install,--group release)
	@touch $@

clean:
	rm -rf .venv .venv-* build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
