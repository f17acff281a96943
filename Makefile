# Two commands matter: `make reproduce` and `make test`. Each makes the environment on its first call.
#   make reproduce                      demo corpora, or what lies in data/
#   make reproduce CORPORA=$HOME/corpora    your own folder of corpora (EMONB_DATA works too)
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
override CORPORA := $(or $(CORPORA),$(EMONB_DATA),auto)
unexport EMONB_DATA
DATA = $(if $(filter auto demo,$(CORPORA)),,EMONB_DATA="$$(cd "$(CORPORA)" && pwd)")

.PHONY: reproduce test test-data lab docs bench faults million readme
reproduce: $(READY)
	$(BIN)/emonb reproduce $(if $(PROFILE),--profile $(PROFILE)) --corpora "$(CORPORA)" $(ARGS)

test: $(READY)
	$(BIN)/nbdev_test --n_workers 2 --do_print
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not data"

# the real recordings: make test-data CORPORA=$HOME/corpora
test-data: $(READY)
	$(DATA) $(BIN)/pytest -q -n 2 --dist worksteal -m data

lab: $(READY)
	$(DATA) $(BIN)/jupyter lab --notebook-dir nbs

docs: $(READY)
	@command -v quarto >/dev/null || { echo "make docs: needs Quarto 1.7.34 on the PATH; get it from https://github.com/quarto-dev/quarto-cli/releases/tag/v1.7.34"; exit 1; }
	$(BIN)/nbdev_docs

bench: $(READY)
	$(DATA) $(BIN)/python -m tests.bench

# what make test does with runs, disks, clocks, downloads and files, with twenty kills and not three, and twenty of a run of all notebooks, which take half an hour; how often each was tried stands in nbs/results/faults.csv
faults: $(READY)
	EMONB_KILLS=20 EMONB_FAULTS=nbs/results/faults.csv $(BIN)/pytest -q -s -m fault tests

# corpora of up to a million chunks; 41 GB of disk under TMPDIR
million: $(READY)
	EMONB_GROWTH=nbs/results/memory_growth.csv $(BIN)/python -m tests.bench_million

readme: $(READY)
	$(BIN)/python -m tests.buttons
	$(BIN)/python -m tests.readme

$(READY): settings.ini constraints.txt setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	touch $(READY)
