PYTHON ?= python3
BIN := .venv/bin

.PHONY: search test test-full lint clean

search: .venv/installed  ## install, then run the main job on the embedded data set
	$(BIN)/prune-nas search --model vgg16 --dataset digits --preset smoke

test: .venv/installed-dev lint  ## everything that must hold before a commit
	$(BIN)/pytest -n auto --dist worksteal

test-full: .venv/installed-dev lint  ## with the tests that take minutes
	$(BIN)/pytest -n auto --dist worksteal -m ""

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ .venv/installed

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
