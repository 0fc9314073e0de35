# Each task sets up .venv with what it needs, once, and again when pyproject.toml changes (the stamps in .venv).
# Another Python: make test PYTHON=python3.12, in .venv-python3.12. More arguments: make test ARGS="-k adam -x".

PYTHON ?= python3
VENV ?= .venv$(addprefix -,$(notdir $(filter-out python3,$(PYTHON))))
ARGS ?=

python := $(VENV)/bin/python
install = $(python) -m pip install --quiet --disable-pip-version-check --editable

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: demo test check faults bench bench-all docs help

demo: $(VENV)/.stamp-plot  ## train the demo network on the penguins; figures in demo-out/
	$(python) -m minidl demo --out demo-out $(ARGS)

# One worker more than there are cores, for while Keras's threads wait for each other.
test: $(VENV)/.stamp-test,keras  ## run all tests, those against live Keras too
	$(python) -m pytest -n $$($(python) -c 'import os; print(min(4, os.cpu_count() + 1))') --dist worksteal $(ARGS)

check: $(VENV)/.stamp-check  ## lint, formatting and types
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy minidl

faults: $(VENV)/.stamp-test,keras  ## plant every fault in Keras and see that the oracle names it (half an hour)
	PYTHONPATH=tests $(python) -m faults $(ARGS)

benchmark = $(python) -m pytest benchmarks --benchmark-only --benchmark-columns=median --benchmark-json=.benchmarks/latest.json

bench: $(VENV)/.stamp-bench  ## compare with other libraries, in minutes, and print the tables
	@mkdir -p .benchmarks
	$(benchmark) -q -m "not slow" $(ARGS)
	$(python) benchmarks/report.py --print .benchmarks/latest.json

bench-all: $(VENV)/.stamp-bench  ## all comparisons; the tables and figures of both READMEs anew
	@mkdir -p .benchmarks
	$(benchmark) -q $(ARGS)
	$(if $(ARGS),,env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OPENBLAS_THREAD_TIMEOUT=21 $(python) benchmarks/step_profile.py --save)
	$(if $(ARGS),,$(python) benchmarks/report.py .benchmarks/latest.json)

docs: $(VENV)/.stamp-docs,keras  ## make the figures, pages and the notebook of docs/ again
	$(python) -m minidl demo --out docs/demo
	$(python) docs/randomness.py
	$(python) docs/notebook.py
	$(python) docs/write_compatibility.py
	$(python) docs/cases.py
	$(python) docs/oracle.py

help:  ## list the tasks
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1 \t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

$(VENV)/.stamp-%: pyproject.toml | $(python)
	@echo "installing minidl[$*] into $(VENV)"
	@$(install) '.[$*]'
	@touch $@

$(python):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"minidl needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ". Try make PYTHON=python3.12.")'
	$(PYTHON) -m venv $(VENV)
