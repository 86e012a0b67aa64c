# Conductor's commands. Each works on a fresh clone: what it needs is installed into .venv first.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
MANAGE := $(RUN) manage.py
HOST ?= 127.0.0.1
PORT ?= 8000
FILES ?=
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install migrate demo run worker test lint types check bench faults format lock

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(VENV)/.installed  ## Create .venv and install everything into it

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Conductor needs Python 3.11 or newer, and %s is %s. Try: make PYTHON=python3.12" % (sys.executable, sys.version.split()[0]))'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python requirements.txt requirements-dev.txt
	@echo "Installing into $(VENV) ..."
	@$(RUN) -m pip install --quiet --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	@touch $@

migrate: install
	@$(MANAGE) migrate --verbosity 0

demo: migrate  ## Deploy two applications that share one real database, and prove it
	@$(MANAGE) demo

run: migrate  ## Serve the portal on http://127.0.0.1:8000 with a worker beside it
	@echo "Conductor: http://$(HOST):$(PORT) -- no user yet? $(MANAGE) createsuperuser"
	@trap 'kill $$worker $$web 2>/dev/null; wait' EXIT; trap 'exit 0' INT TERM; \
	  CONDUCTOR_URL=$${CONDUCTOR_URL:-http://$(HOST):$(PORT)} $(MANAGE) worker & worker=$$!; \
	  $(RUN) -m uvicorn conductor.asgi:application --host $(HOST) --port $(PORT) --timeout-graceful-shutdown 3 & web=$$!; \
	  wait $$web

worker: migrate  ## Run a worker (more of them, on more machines, share the work)
	@exec $(MANAGE) worker

test: install  ## Run the tests
	@$(RUN) -m pytest -n $(JOBS) $(FILES)

lint: install  ## Check style, layers, templates and migrations
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/lint-imports
	@find templates -name '*.html' -exec $(VENV)/bin/djade --target-version 5.2 --check {} +
	@$(MANAGE) makemigrations --check --dry-run

types: install  ## Check the types
	@$(VENV)/bin/mypy

check: lint types test  ## Do all of lint, types and test

bench: migrate  ## Measure planning, dispatch and Terraform against a plain script
	@$(RUN) -m benchmarks

faults: install  ## Run what is slow, and kill workers, tools and servers at random moments, for an hour or two
	@$(RUN) -m pytest -m "slow or faults" $(FILES)

format: install  ## Put code and templates into shape
	@$(VENV)/bin/ruff check --fix --quiet . ; $(VENV)/bin/ruff format .
	@find templates -name '*.html' -exec $(VENV)/bin/djade --target-version 5.2 {} +

lock: install  ## Renew requirements.txt and requirements-dev.txt from their .in files
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-emit-index-url requirements.in -o requirements.txt
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-emit-index-url requirements-dev.in -o requirements-dev.txt
