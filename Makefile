# make demo        trains on MNIST, prints a table, draws plots
# make demo-text   trains a language model and samples from it
# make test        runs the tests; make test-all adds the nightly ones
# make test-library runs those of sparsity, powerprop and topkast
# make lint        checks style and types; make format fixes style
# make docs        builds the site into docs/_build/html
# make bench       measures speed and writes docs/benchmarks.md; more than an hour
# make paper-mnist trains the MNIST tables of docs/results.md again
#
# JAX_EXTRA=cuda13 installs JAX for GPUs (tpu: for TPUs), at the locked version.
# PYTHON=python3.13 uses that Python, in an environment of its own; from 3.12 on
# the locked versions are those of requirements-newest.lock.

PYTHON ?= python3
JAX_EXTRA ?=
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
RUN := $(VENV)/bin/python
LOCK := $(shell $(PYTHON) -c 'import sys; print("requirements%s.lock" % ("-newest" * (sys.version_info >= (3, 12))))')
STAMP := $(VENV)/.installed$(JAX_EXTRA)
KERNELS := $(VENV)/.kernels
LIBRARIES := sparsity powerprop topkast
PAPER := runs/paper
SPEED := docs/results/speed
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.3

.PHONY: setup demo demo-text test test-library test-all lint format docs bench paper-mnist clean

setup: $(STAMP) $(KERNELS)

$(STAMP): $(LOCK)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("expected Python 3.11 or later, got " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	@echo 'Setting up $(VENV) ...'
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r $(LOCK)
	@if [ -n '$(JAX_EXTRA)' ]; then $(RUN) -m pip install --quiet --disable-pip-version-check -c $(LOCK) 'jax[$(JAX_EXTRA)]'; fi
	@touch $(STAMP)

# Without a compiler this says so, and the pure JAX kernels are used.
$(KERNELS): $(STAMP) $(wildcard sparsity/kernels/native/*) sparsity/kernels/build.py
	@-$(RUN) -m sparsity.kernels.build
	@touch $(KERNELS)

demo: setup
	$(RUN) launch.py --config=configs/mnist_powerprop.py:demo --workdir=runs/demo

demo-text: setup
	$(RUN) launch.py --config=configs/text_transformer_xl.py:topkast,num_steps=500 --workdir=runs/demo-text
	$(RUN) -m experiments.sample --workdir=runs/demo-text --prompt='And it came to pass' --length=400

test: setup
	$(RUN) -m pytest -n 2 --dist loadfile -m 'not nightly'

test-library: setup
	$(RUN) -m pytest -n 2 --dist loadfile -m 'not nightly' $(LIBRARIES) $(LIBRARIES:%=tests/%)

test-all: setup
	$(RUN) -m pytest -n 2 --dist loadfile

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: setup
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs: setup
	$(RUN) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo 'The site is docs/_build/html/index.html'

# Networks that diverge, as the table of methods says, end their sweep with an
# error.
paper-mnist: setup
	$(RUN) launch.py --config=configs/mnist_powerprop.py --sweep=alphas --workdir=$(PAPER)/powerprop --jobs=2
	$(RUN) launch.py --config=configs/mnist_topkast.py --sweep=densities --workdir=$(PAPER)/topkast --jobs=2
	-$(RUN) launch.py --config=configs/mnist_methods.py --sweep=methods --workdir=$(PAPER)/methods --jobs=2
	$(RUN) -m experiments.paper --runs=$(PAPER) --stored=docs/results --out=docs/results
	for sweep in powerprop topkast methods; do $(RUN) -m experiments.paper.page --runs=$(PAPER)/$$sweep --out=$(PAPER)/$$sweep.html || exit 1; done

bench: setup
	$(RUN) -m benchmarks.topk --record=$(SPEED)
	$(RUN) -m benchmarks.step --record=$(SPEED)
	$(RUN) -m benchmarks.masked --record=$(SPEED)
	$(RUN) -m benchmarks.compact --kernels=native --record=$(SPEED)
	-SPARSITY_ISA=avx2 $(RUN) -m benchmarks.compact --kernels=native --only=mlp --record=$(SPEED)
	$(RUN) -m benchmarks.storage --record=$(SPEED)
	$(RUN) -m benchmarks.inference --record=$(SPEED)
	$(RUN) -m benchmarks.input --record=$(SPEED)
	$(RUN) -m benchmarks.vision --record=$(SPEED)
	$(RUN) -m benchmarks.language --record=$(SPEED)
	$(RUN) -m benchmarks.soak --minutes=30 --config.train.checkpoint_every=5000 --record=$(SPEED)
	$(RUN) -m benchmarks.page

clean:
	rm -rf .venv .venv-* .cache build docs/_build *.egg-info sparsity/kernels/*.so
