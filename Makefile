# Each target sets itself up: Python 3.11 and make are all that a machine needs.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.ready-dev
TYPECHECK := .typecheck

.PHONY: demo test soak lint reference settings efficiency pictures docs pages setup tools clean

demo: $(READY)
	$(BIN)/mimbench run --method simmim --task detection

# A process of tests for each core, four at most; the tests of one file share a process and its fixtures.
test: $(DEV_READY) tools
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

# Kills, stops, full disks and 300 cells; about 20 minutes on 2 cores. As root, disks are filled too.
soak: $(DEV_READY)
	$(BIN)/python tests/soak.py

lint: $(DEV_READY) $(TYPECHECK)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The records that tables and plots are made from; hours on 2 cores, and it goes on where it stopped.
reference: $(READY)
	for grid in epochs grid mask-ratio detection methods swin convnext; do \
		$(BIN)/mimbench run --grid results/reference/$$grid.toml || exit; done
	$(BIN)/mimbench run --grid results/probes/grid.toml
	for grid in bias attention representation attribution sources privacy fairness; do \
		$(BIN)/mimbench run --grid results/audits/$$grid.toml || exit; done
	$(BIN)/mimbench run --grid results/membership/grid.toml
	for grid in swin convnext larger-images; do $(BIN)/mimbench run --grid results/encoders/$$grid.toml || exit; done
	for grid in grid frames; do $(BIN)/mimbench run --grid results/video/$$grid.toml || exit; done

# The records on a validation part by which the settings of the embedded default were chosen.
settings: $(READY)
	for grid in rates masks check; do $(BIN)/mimbench run --grid results/settings/$$grid.toml || exit; done

# The records of docs/efficiency.md.
efficiency: $(READY)
	for grid in vit visible swin mixmim; do $(BIN)/mimbench run --grid results/efficiency/$$grid.toml || exit; done

# Tables and pictures of README and the docs, from those records.
pictures: $(READY) tools
	$(BIN)/python docs/make_pictures.py

# The documentation site, in build/site. Needs no network once it is set up.
docs: $(DEV_READY) pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# The generated parts of the pages in docs/ and of CONTRIBUTING.md.
pages: $(READY)
	$(BIN)/python docs/make_pages.py

setup: $(READY)

# pdflatex and Chromium, which some tests need, where this machine lets them be installed.
tools:
	bash .ci/tools.sh

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

# The marks are written last, so an interrupted set-up is taken up again.
$(READY): pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(DEV_READY): pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@ $(READY)

# methods/ and tasks/ under the names that they are installed as, for the type checker.
$(TYPECHECK):
	mkdir -p $@
	ln -sfn ../methods $@/mimbench_methods
	ln -sfn ../tasks $@/mimbench_tasks

clean:
	rm -rf $(VENV) $(TYPECHECK) build dist *.egg-info
