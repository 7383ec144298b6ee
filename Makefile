# make demo        trains on MNIST, prints a table, draws plots
# make demo-text   trains a language model and samples from it
# make test        runs the tests; make test-all adds the nightly ones
# make test-library runs those of sparsity, powerprop and topkast
# make lint        checks style and types; make format fixes style
# make docs        builds the site into docs/_build/html
# make bench       measures speed and writes docs/benchmarks.md; more than an hour
#
# make paper-mnist trains tables of docs/results.md again; so do paper-fashion,
# paper-tasks, paper-text and paper-cost, and paper-long, with 10,000 steps of
# every method. Finished runs are skipped, interrupted ones resumed.
#   FASHION=DIR  where Fashion-MNIST lies, for fashion, cost and long
#   JOBS=1       runs at a time, by default 2
#   RUNS=DIR     of the runs, by default runs/paper
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
RUNS ?= runs/paper
JOBS ?= 2
FASHION ?= /usr/share/datasets/fashion-mnist
SPEED := docs/results/speed
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.3

.PHONY: setup demo demo-text test test-library test-all lint format docs bench
.PHONY: paper-mnist paper-fashion paper-tasks paper-text paper-cost paper-long clean

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

# $(call train,FOLDER,CONFIG,SWEEP AND OPTIONS): trains the runs that are missing
# and writes a page on all. Networks that diverge end a sweep with an error; they
# are left out of the tables, which say so.
define train
-$(RUN) launch.py --config=configs/$(2) $(3) --workdir=$(RUNS)/$(1) --jobs=$(JOBS)
$(RUN) -m experiments.paper.page --runs=$(RUNS)/$(1) --out=$(RUNS)/$(1).html
endef
TABLES = $(RUN) -m experiments.paper --runs=$(RUNS) --stored=docs/results --out=docs/results
ON_FASHION = --config.data.data_dir=$(FASHION)
THREE = '--config.seeds=(0,1,2)'
COMMA := ,

# On two cores 2 hours, estimated from the times of a run.
paper-mnist: setup
	$(call train,mnist_powerprop,mnist_powerprop.py)
	$(call train,mnist_topkast,mnist_topkast.py,--sweep=densities)
	$(call train,mnist_methods,mnist_methods.py,--sweep=methods)
	$(TABLES)

# On two cores 4 hours, estimated.
paper-fashion: setup
	$(call train,fashion_methods,mnist_methods.py:data=fashion_mnist,--sweep=methods $(ON_FASHION))
	$(call train,fashion_resnet,fashion_resnet.py,--sweep=residual $(ON_FASHION))
	$(call train,fashion_topkast,fashion_topkast.py,--sweep=ablations $(ON_FASHION))
	$(call train,fashion_patterns,fashion_topkast.py,--sweep=patterns $(ON_FASHION))
	$(TABLES)

# On two cores 5 hours, estimated.
paper-tasks: setup
	$(call train,permuted_packing,permuted_mnist.py,--sweep=packing)
	$(call train,permuted_mnist,permuted_mnist.py,--sweep=strategies)
	$(call train,permuted_mnist_100,permuted_mnist.py,--sweep=hundred_tasks)
	$(TABLES)

# On two cores 4 hours, estimated.
paper-text: setup
	$(call train,text,text_transformer_xl.py,--sweep=text $(THREE))
	$(call train,text_patterns,text_transformer_xl.py:topkast$(COMMA)num_steps=750,--sweep=patterns $(THREE))
	$(TABLES)

# On two cores 5 hours, estimated. The times of a step want a quiet machine.
paper-cost: setup
	$(call train,fashion_cost,fashion_cost.py,--sweep=cost $(ON_FASHION))
	$(call train,text_cost,text_transformer_xl.py,--sweep=cost_text $(THREE))
	$(RUN) -m benchmarks.cost --record=$(SPEED)
	$(RUN) -m benchmarks.page
	$(TABLES)

# On two cores 3 hours, estimated.
paper-long: setup
	$(call train,mnist_methods_long,mnist_methods.py,--sweep=methods_long)
	$(call train,fashion_methods_long,mnist_methods.py:data=fashion_mnist,--sweep=methods_long $(ON_FASHION))
	$(TABLES)

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
	$(RUN) -m benchmarks.cost --record=$(SPEED)
	$(RUN) -m benchmarks.soak --minutes=30 --config.train.checkpoint_every=5000 --record=$(SPEED)
	$(RUN) -m benchmarks.page

clean:
	rm -rf .venv .venv-* .cache build docs/_build *.egg-info sparsity/kernels/*.so
