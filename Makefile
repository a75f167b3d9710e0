# make setup   a virtual environment in .venv with pinned dependencies
# make demo    set up, simulate a moving molecule, fit it, write a report
# make test    set up, run the tests (make test-slow: also those that take minutes)
# make lint    ruff and pyright          make docs   regenerate docs/cli.md, docs/methods.md and the README tree
# make bench   the claims of the README, measured (see bench/README.md)

PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo

.PHONY: setup demo test test-slow lint docs bench clean

setup: .venv/done

.venv/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	touch $@

demo: setup
	$(BIN)/morphem demo -o $(DEMO) --overwrite

test: setup
	$(BIN)/pytest -q -n 2 -m "not slow"

test-slow: setup
	$(BIN)/pytest -q -n 2

lint: setup
	$(BIN)/ruff check src tests bench docs
	$(BIN)/ruff format --check src tests bench docs
	$(BIN)/pyright

docs: setup
	$(BIN)/python docs/generate.py

bench: setup
	$(BIN)/python bench/run.py

clean:
	rm -rf .venv demo
