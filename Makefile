# Everything a newcomer or CI runs. Each target installs what it needs first, says so, and is quick the second time.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
PYTEST := $(VENV)/bin/pytest
JOBS := $(shell nproc)
SEEDS ?= 500

.PHONY: help lock demo demo-down test lint unit sim fuzz lab-test vm-test bench docs agent-pythons clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: venv packages-lab ## three real hosts on this machine, and what sshoal does with them; every claim checked and timed
	@$(PYTHON) -m lab.demo

demo-down: venv ## take the demo's hosts away; nothing stays behind
	@$(PYTHON) -m lab.demo --down

test: lint unit ## everything that CI runs
	@$(MAKE) --no-print-directory -j2 lab-test sim-beside
	@$(MAKE) --no-print-directory agent-pythons

lint: venv ## ruff, mypy --strict, docs/compatibility.md, import contracts
	@$(VENV)/bin/ruff format --check --quiet . && $(VENV)/bin/ruff check --quiet . && $(VENV)/bin/mypy && $(PYTHON) tools/compatibility.py --check && $(VENV)/bin/lint-imports --no-cache | tail -3

unit: venv packages-test ## unit, case and contract tests, without lab hosts
	@$(PYTEST) -q -n $(JOBS) -m "not lab and not vm and not sim" tests

sim: venv ## seeded simulation (SEEDS=500), or one seed again: make sim SEED=42
	@$(if $(SEED),$(PYTHON) -m tests.sim $(SEED),SSHOAL_SEEDS=$(SEEDS) $(PYTEST) -q -s -n $(JOBS) -m sim tests/sim)

# Real hosts mostly wait: the simulation takes what processor time they leave, and tells how it was at the end.
.PHONY: sim-beside
sim-beside: venv
	@mkdir -p build && echo "==> the simulation runs beside: build/sim.log"
	@nice -n 19 $(MAKE) --no-print-directory sim >build/sim.log 2>&1 || { cat build/sim.log; exit 1; }; tail -n 5 build/sim.log

fuzz: venv ## hostile input without end for all that reads what others wrote (FUZZ="manifest reply": these only); Ctrl-C ends
	@$(PYTHON) -m tests.fuzz $(FUZZ)

lab-test: venv packages-lab ## tests on real hosts: systemd, sshd, Podman
	@$(PYTEST) -q -p no:randomly -m lab tests

vm-test: venv packages-vm ## the agent in a Debian 13 virtual machine: Podman 5.4, cgroup v2 (slow: software emulation)
	@$(PYTEST) -q -p no:randomly -m vm tests

agent-pythons: venv ## the agent's tests on Python 3.9 and 3.13, where this machine has them (MINORS="10 12": on others)
	@MINORS="$(MINORS)" tools/agent-pythons.sh

bench: venv packages-lab ## figures: ours, the comparison, the ratio; kept in bench/results/
	@$(PYTHON) -m bench

docs: venv ## the documentation as a site, every link checked
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check mkdocs && $(VENV)/bin/mkdocs build --strict --quiet

lock: venv ## requirements.lock anew: the newest releases that pyproject.toml allows, with hashes
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check pip-tools && $(VENV)/bin/pip-compile --quiet --upgrade --extra dev --generate-hashes \
		--strip-extras --allow-unsafe --no-header --no-annotate --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--output-file requirements.lock pyproject.toml

clean: ## what the targets above made in this directory
	@rm -rf $(VENV) .stamps build site *.egg-info

# ---- what the targets need ----

.PHONY: venv packages-lab packages-test packages-vm
venv: .stamps/venv
packages-lab: .stamps/packages-lab
packages-test: .stamps/packages-test
packages-vm: .stamps/packages-vm

.stamps/venv: pyproject.toml requirements.lock tools/venv.sh
	@tools/venv.sh $(VENV) && mkdir -p .stamps && touch $@

.stamps/packages-%: tools/packages.sh
	@tools/packages.sh $* && mkdir -p .stamps && touch $@
