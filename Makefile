# One command each: `make demo`, `make test`, `make lint`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOL := $(VENV)/.tool

.PHONY: demo test test-faults test-extras fuzz browser lint clean

# What `fommctl` itself needs; the tools of its developers are several times as large.
$(TOOL): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(STAMP): $(TOOL)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(TOOL)
	$(BIN)/fommctl demo --overwrite

# Each worker takes a stretch of the files, so that what a file's tests share is made once, and the first that is done
# takes from the others.
test: $(STAMP) browser
	$(BIN)/python -m pytest -n auto --dist worksteal

# Kills, full disks, mutated files: all of them; `make test` takes a sample.
test-faults: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal tests/faults tests/fuzz --full --timeout 1800

# All optional packages at once, in an environment of their own: some hold others at older versions. Not "restore": the
# torchvision of PyPI that it brings does not load beside a torch without CUDA.
EXTRAS := $(VENV)-extras
test-extras:
	$(PYTHON) -m venv $(EXTRAS)
	$(EXTRAS)/bin/python -m pip install --quiet --constraint constraints-extras.txt \
		--editable '.[train,robots,c2pa,mesh,ray,eval,vfx,otio]' pytest pytest-timeout
	$(EXTRAS)/bin/python -m pytest tests/test_extras.py tests/plugins/test_faces.py tests/plugins/test_bodies.py \
		tests/train/test_tensorboard_log.py

# Coverage-guided fuzzing of parsers, five minutes each: make fuzz PARSERS="presets records". By hand only.
PARSERS ?= presets tables records headers
fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet atheris
	for parser in $(PARSERS); do $(BIN)/python tests/fuzz/coverage_guided.py $$parser -max_total_time=300 || exit 1; done

# Chromium, which opens the page of `evaluate` in its tests; nothing to do where one is there already.
browser:
	@for name in $(CHROMIUM) chromium chromium-browser google-chrome google-chrome-stable chrome; do \
		command -v $$name >/dev/null && exit 0; \
	done; apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium || \
		echo 'Chromium cannot be installed here: the tests of the page of evaluate need it' >&2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(VENV)-extras demo
