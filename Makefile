# The two commands of the README: make run, make test. `make help` lists the rest.
PY := .venv/bin/python
WORKERS ?= 3

.PHONY: help setup setup-tests run test test-faults lint types bench clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup:           ## system packages, .venv/bin/wherry and .venv/bin/wherryd
	@scripts/setup

setup-tests:     ## what the tests need besides
	@scripts/setup --with-tests

run: setup       ## build the Flask example and serve its page, from nothing (PORT=8080)
	@scripts/demo

test: setup-tests ## the whole suite, against the real kernel, conmon and crun (as root)
	$(PY) -m pytest -n $(WORKERS) --dist loadgroup -m "not slow" tests

test-faults: setup-tests ## the long fault and load runs
	$(PY) -m pytest -m slow tests

lint: setup-tests ## ruff: rules and format
	$(PY) -m ruff check src tests bench
	$(PY) -m ruff format --check src tests bench

types: setup-tests ## mypy, strict
	$(PY) -m mypy

bench: setup     ## side by side with Docker Engine, where it is installed
	$(PY) bench/run.py

clean:           ## the virtual environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
