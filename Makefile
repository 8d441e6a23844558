# Aliases of the tox environments, under the names that people try first. The settings are in tox.ini and pyproject.toml.

TOX ?= tox

.DEFAULT_GOAL := help
.PHONY: help test test-unit test-e2e test-sim test-oracles test-broker-alone test-py313 test-hosts quality format demo wheel clean

help:              ## what there is
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 20

test:              ## everything
	$(TOX)

test-unit:         ## the tests that start no processes
	$(TOX) -e unit

test-e2e:          ## real broker and worker processes
	$(TOX) -e e2e

test-sim:          ## the seeded World
	$(TOX) -e sim

test-oracles:      ## the science against independent implementations
	$(TOX) -e oracles

test-broker-alone: ## the base install, without the science
	$(TOX) -e broker-alone

test-py313:        ## everything that needs no science, on Python 3.13
	$(TOX) -e py313-core

test-hosts:        ## network namespaces and fresh Debian systems; needs root
	$(TOX) -e hosts

quality:           ## ruff, mypy, import-linter
	$(TOX) -e quality

format:            ## let ruff rewrite what it can
	$(TOX) -qq exec -e quality -- ruff check --fix .
	$(TOX) -qq exec -e quality -- ruff format .

demo:              ## a cluster of its own, a training and a backtest
	$(TOX) -e demo

wheel:             ## the distribution, in dist/
	$(TOX) -qq exec -e tests -- python -m build

clean:             ## what checks and builds leave behind
	rm -rf .tox build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
