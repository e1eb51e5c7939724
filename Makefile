# Two commands are all the set-up there is: `make sweep` runs a first sweep, `make test` the whole suite.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: sweep test test-fast soak check format browser clean

sweep: $(VENV)/.installed  ## a first sweep on embedded images: no download, no GPU
	$(BIN)/prune-cli sweep lenet5 --delta 0.005

test: $(VENV)/.installed-dev browser check  ## everything: real Ray, real MLflow, a real browser
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-fast: $(VENV)/.installed-dev  ## no Ray, no MLflow, no browser
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not ray and not mlflow and not browser and not slow"

soak: $(VENV)/.installed-dev  ## fifty random faults on a small real sweep: half an hour
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.faults --faults 50

check: $(VENV)/.installed-dev  ## format, lint, types, layers
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The browser that tests look at reports with is a Debian package: only root can install it, tests skip without it.
browser:
	@command -v chromium >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing chromium"; apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	else echo "no chromium, and not root: tests that look at pages will be skipped"; fi

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV): two minutes, 2 GB"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) --editable ".[dev,export]"
	@$(PIP) --no-deps imagecorruptions==1.1.2  # an oracle; it asks for an OpenCV with windows, and for old versions
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache dist build
