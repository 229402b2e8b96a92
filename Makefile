# The two commands of the README: make run, make test. `make help` lists the rest.
PY := .venv/bin/python
WORKERS ?= 3
SAMPLE ?= 20
SUITE ?= bookworm
ARCHITECTURE ?= amd64

# Emulated, everything takes about ten times as long.
MACHINE = WHERRY_TEST_PATIENCE=10 $(PY) tests/kernels/machine.py --
PYTEST_THERE = $(PY) -m pytest -p no:cacheprovider -m "not slow"

.PHONY: help setup setup-tests setup-kernel setup-browser setup-hub run run-hub test test-all test-clients test-faults test-versions test-mutants lint types bench bench-scale site deb clean
.PHONY: ci-versions test-kernel test-kernel-engine test-kernel-networks test-kernel-parts

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup:           ## system packages, .venv/bin/wherry and .venv/bin/wherryd
	@scripts/setup

setup-tests:     ## what the tests need besides
	@scripts/setup --with-tests

run: setup       ## build the Flask example and serve its page, from nothing (PORT=8080)
	@scripts/demo

setup-browser:   ## the same, and Chromium for the tests of the hub's pages
	@scripts/setup --with-browser

setup-hub:       ## what wherry-hub needs besides
	@scripts/setup --with-hub

run-hub: setup-hub ## a registry on 127.0.0.1:5000: an account, a push, a pull; then it serves until Ctrl-C
	@scripts/demo-hub

test: setup-tests ## the suite, against the real kernel, conmon and crun (as root)
	$(PY) -m pytest -n $(WORKERS) --dist loadgroup -m "not slow and not thorough" tests

test-all: setup-browser ## the same, and the thorough tests: matrices, attacks, kills (tests/thorough.txt)
	scripts/fetch-axe || [ $$? = 75 ]
	$(PY) -m pytest -n $(WORKERS) --dist loadgroup -m "not slow" tests

test-faults: setup-tests ## the long fault and load runs, and what belongs to them; one table at the end
	$(PY) -m pytest -m "slow or fault" tests

test-clients: setup-tests ## clients of others, each as it is locked: docs/compatibility.md; the builder's long runs as well
	scripts/fetch-plugins
	scripts/fetch-clients
	$(PY) -m pytest -n $(WORKERS) --dist loadgroup tests/clients tests/integration/test_api_sdk.py \
		tests/unit/buildkit $(wildcard tests/integration/test_buildkit_*.py) tests/integration/test_compose_plugin.py

test-versions: setup-tests ## the unit tests at the lowest versions declared, at the newest, and on Python 3.12 and 3.13
	@scripts/test-versions minima newest python3.12 python3.13

# Python 3.13 takes a root of its own, so it is left to whoever changes what is declared.
ci-versions: setup-tests
	@WORKERS=1 scripts/test-versions minima newest

test-mutants: setup-tests ## does a test notice? SAMPLE wrong lines of each room that guards data and isolation
	$(PY) tests/mutants/run.py --sample $(SAMPLE)

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
	$(PY) -m ruff check src tests bench packaging
	$(PY) -m ruff format --check src tests bench packaging

types: setup-tests ## mypy, strict
	$(PY) -m mypy

bench: setup     ## side by side with Docker Engine, where it is installed
	$(PY) bench/run.py

bench-scale:     ## cost against number: containers, ports, networks, images, volumes, streams; pictures in docs/pictures
	@scripts/setup --with-bench
	mkdir -p docs/pictures
	$(PY) bench/scale.py --pictures docs/pictures

site:            ## the pages of docs/ as a site in dist/site, with search; a broken link fails
	@scripts/setup --with-site
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet

deb: setup       ## Debian packages in dist/ (SUITE=bookworm, ARCHITECTURE=amd64)
	$(PY) packaging/deb.py --suite $(SUITE) --architecture $(ARCHITECTURE)

clean:           ## the virtual environment and caches
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
