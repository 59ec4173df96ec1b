# make search   the main job on handwritten digits (installs what it needs into .venv)
# make test     lint, types and the whole test suite

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/digits-$(shell date +%Y%m%d-%H%M%S)
ARGS ?=

.PHONY: search test lint types check bench slow lock clean

search: $(VENV)/installed
	$(BIN)/hwnas search scripts/digits.yaml --out $(RUN) $(ARGS)

test: check

check: lint types
	$(BIN)/pytest --numprocesses 2 --dist loadfile

slow: $(VENV)/installed
	$(BIN)/pytest -m slow

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed build/types/hwnas
	$(BIN)/mypy $(foreach layer,spaces latency_tables predictors search scripts,-p hwnas.$(layer))

bench: $(VENV)/installed
	$(BIN)/hwnas bench latency
	$(BIN)/hwnas bench scoring
	$(BIN)/hwnas bench spaces

# The layers' folders stand at the root; type checkers want them inside a folder called hwnas.
build/types/hwnas:
	mkdir -p $@
	for layer in spaces latency_tables predictors search scripts; do ln -sfn ../../../$$layer $@/$$layer; done

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

# Writes the versions installed now, after changing pyproject.toml and installing by hand.
lock:
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v '^hwnas' > requirements.lock

clean:
	rm -rf build $(VENV) *.egg-info
