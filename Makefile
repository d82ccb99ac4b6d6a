# Each target sets up what it needs: a .venv pinned by constraints.txt, for test-vision a .venv-vision with torchvision,
# timm and pytorch-ood on top of that, for test-browser a small .venv-browser with Playwright and axe-core, for
# test-notebook a .venv-notebook with nbclient and ipykernel. PYTHON may name another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VISION := .venv-vision
VISION_STAMP := $(VISION)/.installed
BROWSER := .venv-browser
BROWSER_STAMP := $(BROWSER)/.installed
NOTEBOOK := .venv-notebook
NOTEBOOK_STAMP := $(NOTEBOOK)/.installed

.PHONY: demo test test-fast check test-slow test-gpu test-vision test-browser test-notebook studies bench clean

demo: $(STAMP)
	$(BIN)/suture demo --out suture-demo

# Files keep the order of tests/conftest.py, which puts the long ones first and every process on one thread.
test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m fast

check: $(STAMP)
	$(BIN)/ruff check src tests benchmarks docs checks
	$(BIN)/python checks/glossary.py
	$(BIN)/python checks/messages.py
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# On a machine with a GPU.
test-gpu: $(STAMP)
	$(BIN)/python checks/gpu.py

test-vision: $(VISION_STAMP)
	$(VISION)/bin/ruff check tests_vision
	$(VISION)/bin/python -m pytest tests_vision

# Opens reports in Chromium: that of the system, else the one that Playwright brings; skipped where neither is to be had.
test-browser: $(STAMP) $(BROWSER_STAMP)
	$(BIN)/ruff check tests_browser
	$(BIN)/python -m tests_browser.make_pages $(BROWSER)/pages
	$(BROWSER)/bin/python -m pytest -rs tests_browser

# A notebook in a kernel of its own.
test-notebook: $(NOTEBOOK_STAMP)
	$(NOTEBOOK)/bin/python checks/notebook.py

# The pages and figures of docs/studies.md: twelve checkpoints of one training, and six seeds.
studies: $(STAMP)
	for name in checkpoints seeds; do \
		$(BIN)/suture study run docs/studies/$$name.toml && $(BIN)/suture study report docs/studies/$$name.toml || exit 1; \
	done
	$(BIN)/python docs/studies/figures.py

bench: $(STAMP)
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

# An environment in a folder, with what pip is told beside constraints.txt.
define install
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "suture needs Python 3.11 or newer")'
$(PYTHON) -m venv $(1)
$(1)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(2)
touch $@
endef

$(STAMP): pyproject.toml constraints.txt
	$(call install,$(VENV),-e '.[dev]')

$(VISION_STAMP): pyproject.toml constraints.txt constraints-vision.txt
	$(call install,$(VISION),-c constraints-vision.txt -e '.[dev-vision]')

$(BROWSER_STAMP): constraints.txt constraints-browser.txt
	$(call install,$(BROWSER),-c constraints-browser.txt playwright axe-playwright-python pytest)
	for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		if command -v $$name; then exit 0; fi; done; \
	$(BROWSER)/bin/python -m playwright install chromium || echo "no Chromium: the tests will be skipped"

$(NOTEBOOK_STAMP): pyproject.toml constraints.txt constraints-notebook.txt
	$(call install,$(NOTEBOOK),-c constraints-notebook.txt -e '.[dev-notebook]')

clean:
	rm -rf $(VENV) $(VISION) $(BROWSER) $(NOTEBOOK) suture-demo .mypy_cache .ruff_cache .pytest_cache
