# Two commands for a fresh clone: `make quickstart` and `make test`.
# The rest: `make help`.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help quickstart test test-all test-browser notebooks results check lint venv format lock clean

# To choose the interpreter of .venv: make PYTHON=python3.12 test

python := .venv/bin/python
code := discovery envs learned_objectives tests
pytest := $(python) -m pytest --junitxml=.build/tests.xml

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s%s\n", $$1, $$2}'

quickstart: ## install, then evolve a small objective and draw its figure
	@tools/install.sh run
	@.venv/bin/kairos quickstart

test: venv ## install, then run the tests that take seconds
	@$(pytest) -m "not slow"

test-all: venv ## install, then run every test
	@$(pytest)

test-browser: venv ## open sample pages in Chromium, phone-wide and wide (RUN=folder: its page)
	@$(python) tools/test-browser.py $(RUN)

notebooks: venv ## execute the notebooks in full, and store their outputs
	@$(python) tools/notebooks.py

results: venv ## write into RESULTS.md what the tables say, with its pictures
	@$(python) tools/results.py

check: lint test ## what has to pass before a change lands

lint: venv ## format, lint and types
	@echo "==> format"
	@$(python) -m ruff format --check .
	@echo "==> lint"
	@$(python) -m ruff check .
	@echo "==> types"
	@$(python) -m mypy

venv: ## install everything a developer needs into .venv
	@tools/install.sh dev

format: venv ## rewrite the code in the one format
	@$(python) -m ruff check --fix-only --quiet .
	@$(python) -m ruff format .

lock: venv ## resolve the locks anew (UPGRADE=1: newest versions)
	@tools/lock.sh $(if $(UPGRADE),--upgrade)

clean: ## remove caches and build outputs, not .venv and not runs
	@rm -rf .build build dist *.egg-info .hypothesis
	@find $(code) -name __pycache__ -type d -prune -exec rm -rf {} +
