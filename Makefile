# The two commands of the README: make run, make test. `make help` lists the rest.
PY := .venv/bin/python
WORKERS ?= 3

# Emulated, everything takes about ten times as long.
MACHINE = WHERRY_TEST_PATIENCE=10 $(PY) tests/kernels/machine.py --
PYTEST_THERE = $(PY) -m pytest -p no:cacheprovider -m "not slow"

.PHONY: help setup setup-tests setup-kernel run test test-faults lint types bench clean
.PHONY: test-kernel test-kernel-engine test-kernel-networks test-kernel-parts

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

setup-kernel:    ## what test-kernel needs besides: QEMU, and Debian's kernel in .cache
	@scripts/setup --with-kernel

test-kernel: setup-kernel ## what tells about a kernel, on Debian's own, in QEMU: two machines at once, ten minutes
	@$(MAKE) --no-print-directory -j2 --output-sync=target $(addprefix test-kernel-,parts engine networks)

# containers, with cgroup version 2 alone
test-kernel-engine: setup-kernel
	$(MACHINE) $(PYTEST_THERE) @tests/kernels/engine.args

# what the tests cannot meet where the host's kernel lacks it: IPsec ESP, ipvlan, VLANs
test-kernel-parts: setup-kernel
	$(MACHINE) $(PYTEST_THERE) @tests/kernels/parts.args

# overlay networks on several hosts, macvlan
test-kernel-networks: setup-kernel
	$(MACHINE) $(PYTEST_THERE) @tests/kernels/networks.args

lint: setup-tests ## ruff: rules and format
	$(PY) -m ruff check src tests bench
	$(PY) -m ruff format --check src tests bench

types: setup-tests ## mypy, strict
	$(PY) -m mypy

bench: setup     ## side by side with Docker Engine, where it is installed
	$(PY) bench/run.py

clean:           ## the virtual environment and caches
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
