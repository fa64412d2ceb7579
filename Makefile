# The commands of the README. Every target sets up what it needs: a virtual environment in VENV, with the checkout in it.
#   make demo      restore damaged sample photos: a table and a contact sheet in demo/
#   make test      the tests; with ALL=1 the exhaustive ones, too, as in CI; with ALL=2 those of half a minute
#   make test-fast those that take no time
#   make lint      format, lint, types, imports
#   make docs      the documentation site in docs/_build/html, warnings as errors
#   make bench     speed, the cost of the fiftieth plugin, 250 kills; with DATA=folder the quality tables on the test sets, too
# VENV=folder puts the environment elsewhere; PYTHON=program makes it with that Python; WORKERS=n tests in n processes.

VENV ?= .venv
WORKERS ?= 2
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

PROJECTS := $(sort $(wildcard plugins/*/pyproject.toml))
PLUGINS := $(patsubst %/pyproject.toml,-e ./%,$(PROJECTS))
RUN = "$(VENV)/bin/python" -m
# Says what is installed: this checkout, as these files describe it. Another checkout or an edited file installs anew.
STATE = $(CURDIR) $(shell cat pyproject.toml $(PROJECTS) | cksum)
STAMP = $(VENV)/.abair-installed

# The build tool goes in first and is used as it is: an isolated environment for each of the distributions takes a minute.
# To compile every module of every library takes minutes, too; Python compiles the few that are imported.
.PHONY: install demo test test-fast lint docs bench

install:
	@test "$$(cat "$(STAMP)" 2>/dev/null)" = "$(STATE)" && "$(VENV)/bin/python" -c '' 2>/dev/null && exit 0; set -e; \
	python='$(PYTHON)'; \
	"$${python:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "make: found $$("$${python:-python3}" --version 2>&1 | head -n 1); ABAIR needs Python 3.11 or later;" \
			"install one, or name one you have: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	echo "Installing into $(VENV) (the first time this takes minutes: PyTorch is large)"; \
	"$$python" -m venv "$(VENV)" >/dev/null 2>&1 || { \
		"$$python" -m venv --without-pip "$(VENV)"; \
		"$$python" -m pip --python "$(VENV)/bin/python" install --quiet pip; }; \
	$(RUN) pip install --quiet 'hatchling>=1.27' 'editables>=0.5'; \
	$(RUN) pip install --quiet --no-compile --no-build-isolation -e '.[registry,train,bench,formats,watch,onnx,serve,dev,docs]' $(PLUGINS); \
	echo "$(STATE)" > "$(STAMP)"

demo: install
	"$(VENV)/bin/abair" demo --out demo

test: install
	$(RUN) pytest -n $(WORKERS) --dist loadgroup $(if $(filter 2,$(ALL)),,-m "not $(if $(ALL),rare,exhaustive)")

test-fast: install
	$(RUN) pytest -n $(WORKERS) --dist loadgroup -m "not slow and not exhaustive"

lint: install
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	"$(VENV)/bin/lint-imports"

docs: install
	$(RUN) sphinx -W --keep-going -b html docs docs/_build/html

bench: install
	"$(VENV)/bin/abair" bench speed
	"$(VENV)/bin/python" benchmarks/measure_list.py
	"$(VENV)/bin/python" benchmarks/measure_flat.py
	ABAIR_KILLS=200 $(RUN) pytest tests/registry/operations/test_kill.py
	$(if $(DATA),"$(VENV)/bin/abair" bench quality --data "$(DATA)" --out bench)
