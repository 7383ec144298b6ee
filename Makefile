# make demo   trains on MNIST, prints a table, draws plots
# make demo-text  trains a language model, prints a sample of its text
# make paper-mnist  runs what the README's tables show, and writes them again
# make test   runs all tests
# make lint   checks style; make format mends what it can
# make bench  measures speed, always as ratios taken in one run

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.3

# Where no compiler is, this says so, and the kernels in pure JAX are used.
KERNELS := $(VENV)/.kernels

PAPER := runs/paper

.PHONY: demo demo-text paper-mnist tutorial test lint format bench setup clean

setup: $(STAMP) $(KERNELS)

$(STAMP): requirements.lock
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("expected Python 3.11 or later, got " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	@echo 'Setting up $(VENV) ...'
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $(STAMP)

$(KERNELS): $(STAMP) $(wildcard sparsity/kernels/native/*) sparsity/kernels/build.py
	@-$(RUN) -m sparsity.kernels.build
	@touch $(KERNELS)

demo: $(STAMP) $(KERNELS)
	$(RUN) launch.py --config=configs/mnist_powerprop.py:demo --workdir=runs/demo

demo-text: $(STAMP) $(KERNELS)
	$(RUN) launch.py --config=configs/text_transformer_xl.py:topkast,num_steps=500 --workdir=runs/demo-text
	$(RUN) -m experiments.sample --workdir=runs/demo-text --prompt='And it came to pass' --length=400

# Some networks diverge, as the table of methods says: their sweep ends with an
# error that is no reason to stop.
paper-mnist: $(STAMP) $(KERNELS)
	$(RUN) launch.py --config=configs/mnist_powerprop.py --sweep=alphas --workdir=$(PAPER)/powerprop --jobs=2
	$(RUN) launch.py --config=configs/mnist_topkast.py --sweep=densities --workdir=$(PAPER)/topkast --jobs=2
	-$(RUN) launch.py --config=configs/mnist_methods.py --sweep=methods --workdir=$(PAPER)/methods --jobs=2
	$(RUN) -m experiments.paper --runs=$(PAPER) --out=docs/results --readme=README.md --table=mnist_pruning --table=mnist_topkast --table=mnist_methods
	for sweep in powerprop topkast methods; do $(RUN) -m experiments.paper.report_page --runs=$(PAPER)/$$sweep --out=$(PAPER)/$$sweep.html || exit 1; done

# The tutorial, executed: what one looks at without running it.
tutorial: $(STAMP)
	PYTHONPATH=. $(VENV)/bin/jupyter execute docs/tutorial.ipynb --output=tutorial_executed.ipynb

test: $(STAMP) $(KERNELS)
	$(RUN) -m pytest -n 2

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(STAMP)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(STAMP) $(KERNELS)
	$(RUN) -m benchmarks.topk
	$(RUN) -m benchmarks.step
	$(RUN) -m benchmarks.loop
	$(RUN) -m benchmarks.masked
	$(RUN) -m benchmarks.kernels
	$(RUN) -m benchmarks.compact
	$(RUN) -m benchmarks.storage
	$(RUN) -m benchmarks.inference
	$(RUN) -m benchmarks.input
	$(RUN) -m benchmarks.vision
	$(RUN) -m benchmarks.language
	$(RUN) -m benchmarks.packing
	$(RUN) -m benchmarks.packs

clean:
	rm -rf $(VENV) .cache build *.egg-info sparsity/kernels/*.so
