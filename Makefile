# make demo   trains on MNIST, prints a table, draws plots
# make demo-text  trains a language model, prints a sample of its text
# make paper-mnist  runs what the README's tables on MNIST show, and writes them again
# make readme  makes README.md from docs/README.template.md and docs/results
# make test   runs all tests
# make lint   checks style; make format mends what it can
# make bench  measures speed, always as ratios taken in one run, for the README; more than an hour

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.3

# Where no compiler is, this says so, and the kernels in pure JAX are used.
KERNELS := $(VENV)/.kernels

PAPER := runs/paper

.PHONY: demo demo-text paper-mnist readme tutorial test lint format bench setup clean

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
	$(RUN) -m experiments.paper --runs=$(PAPER) --out=docs/results --table=mnist_pruning --table=mnist_topkast --table=mnist_topkast_pruning --table=mnist_methods
	for sweep in powerprop topkast methods; do $(RUN) -m experiments.paper.report_page --runs=$(PAPER)/$$sweep --out=$(PAPER)/$$sweep.html || exit 1; done
	$(RUN) -m experiments.paper.readme

readme: $(STAMP)
	$(RUN) -m experiments.paper.readme

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

SPEED := docs/results/speed

bench: $(STAMP) $(KERNELS)
	$(RUN) -m benchmarks.topk --record=$(SPEED)
	$(RUN) -m benchmarks.step --record=$(SPEED)
	$(RUN) -m benchmarks.loop --record=$(SPEED)
	$(RUN) -m benchmarks.masked --record=$(SPEED)
	$(RUN) -m benchmarks.kernels --record=$(SPEED)
	$(RUN) -m benchmarks.compact --kernels=native --record=$(SPEED)
	-SPARSITY_ISA=avx2 $(RUN) -m benchmarks.compact --kernels=native --only=mlp --record=$(SPEED)
	$(RUN) -m benchmarks.storage --record=$(SPEED)
	$(RUN) -m benchmarks.inference --record=$(SPEED)
	$(RUN) -m benchmarks.input --record=$(SPEED)
	$(RUN) -m benchmarks.vision --record=$(SPEED)
	$(RUN) -m benchmarks.language --record=$(SPEED)
	$(RUN) -m benchmarks.packing --record=$(SPEED)
	$(RUN) -m benchmarks.packs --record=$(SPEED)
	$(RUN) -m benchmarks.growth --record=$(SPEED)
	$(RUN) -m benchmarks.saves --record=$(SPEED)
	$(RUN) -m benchmarks.saves --plain --record=$(SPEED)
	$(RUN) -m benchmarks.soak --minutes=30 --config.train.checkpoint_every=5000 --record=$(SPEED)

clean:
	rm -rf $(VENV) .cache build *.egg-info sparsity/kernels/*.so
