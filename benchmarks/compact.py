"""The cost of a training step with compact storage, dense = 1.

  python -m benchmarks.compact [--quick] [--only=mlp] [--kernels native xla]
      [--record=DIR]

Top-KAST with Adam, forward / backward density in each layer: the dense Optax
step, the masked step, and the compact step with each available implementation
of the kernels. Each step follows an untimed one of its kind, as in training;
the ratio includes a refresh every 100 steps.

  time      multiple of the dense step
  to ideal  time over the share of FLOPs, (2 f_A + f_B) / 3 f_D; products
            without weights, such as attention, are dense
  refresh   seconds
  state     bytes of parameters, gradients and optimizer state, with indices
            and masks, as a multiple of dense
  peak      MB of the step: arguments, results and temporaries
"""

import gc
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import networks
from benchmarks import record
import sparsity
from sparsity import flops
from sparsity import kernels
import topkast

PAIRS = ((0.2, 0.4), (0.1, 0.2), (0.05, 0.1), (0.02, 0.05))  # A, B
ROUNDS = {'mlp': 15, 'transformer': 15, 'transformer_128': 15, 'resnet': 3}
REFRESH_EVERY = 100
OPTIMIZER = optax.adam(1e-3)


class Case:
  """A compiled training step and its carry."""

  def __init__(self, problem, params, state, update, implementation=None):
    def step(params, state, batch):
      gradients = sparsity.grad(problem.loss)(
        self.apply_mask(params, state), batch
      )
      updates, state = update(gradients, state, params)
      return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.copy, params)  # donated
    with kernels.use(implementation or kernels.implementation()):
      lowered = jax.jit(step, donate_argnums=(0, 1)).lower(
        params, state, problem.batch
      )
    self.compiled = lowered.compile()
    self.carry = params, state
    self.batch = problem.batch

  def apply_mask(self, params, state):
    """Returns the weights of the forward pass."""
    return sparsity.forward_weights(params, state)

  def __call__(self) -> Any:
    """Makes a step."""
    self.carry = self.compiled(*self.carry, self.batch)
    return self.carry

  def state_bytes(self) -> int:
    """Returns the bytes of parameters, gradients and optimizer state."""
    params, state = map(sparsity.compact.num_bytes, self.carry)
    return 2 * params + state

  def peak_bytes(self) -> int:
    """Returns the peak bytes of the step."""
    memory = self.compiled.memory_analysis()
    return (
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      + memory.temp_size_in_bytes
      - memory.alias_size_in_bytes
    )


class Dense(Case):
  """The plain Optax step."""

  def __init__(self, problem):
    state = OPTIMIZER.init(problem.params)
    super().__init__(problem, problem.params, state, OPTIMIZER.update)

  def apply_mask(self, params, state):
    """Returns all weights."""
    del state
    return params


class Compact(Case):
  """A compact step and its refresh."""

  def __init__(self, problem, training, implementation):
    params, state, self.host_params = training.init(problem.params)
    self.training = training
    super().__init__(problem, params, state, training.update, implementation)

  def refresh(self) -> float:
    """Refreshes, and returns the seconds taken."""
    start = time.perf_counter()
    *carry, self.host_params = self.training.refresh(
      *self.carry, self.host_params
    )
    self.carry = tuple(jax.block_until_ready(carry))
    return time.perf_counter() - start


class Masked(Case):
  """A masked step; its refresh is part of a step that is due."""

  def __init__(self, problem, tx):
    super().__init__(
      problem, problem.params, tx.init(problem.params), tx.update
    )

  def refresh(self) -> float:
    """Refreshes, and returns the seconds taken."""
    params, state = self.carry
    self.carry = params, state._replace(count=jnp.int32(REFRESH_EVERY - 1))
    start = time.perf_counter()
    jax.block_until_ready(self())
    due = time.perf_counter() - start
    start = time.perf_counter()
    jax.block_until_ready(self())
    return due - (time.perf_counter() - start)


def make_cases(problem, densities, implementations) -> dict[str, Case]:
  tx = topkast.topkast(
    OPTIMIZER,
    forward_density=densities[0],
    backward_density=densities[1],
    refresh_every=REFRESH_EVERY,
    dense=problem.dense,
  )
  training = sparsity.compact.compact(tx)
  return {'masked': Masked(problem, tx)} | {
    f'compact, {name}': Compact(problem, training, name)
    for name in implementations
  }


def ideal(problem, densities) -> float:
  """Returns the FLOPs of a step as a share of the dense step's."""
  network = flops.count(problem.loss, problem.params, problem.batch)
  chosen = sparsity.make_counts(
    forward_density=densities[0],
    backward_density=densities[1],
    dense=problem.dense,
  )(problem.params)
  shares = [
    {path: kept[path] / size for path, size in chosen.sizes.items()}
    for kept in (chosen.forward, chosen.backward)
  ]
  return flops.train(network, *shares) / flops.train(network)


def compare(problem, implementations, rounds: int, figures) -> None:
  dense = Dense(problem)
  for densities in PAIRS:
    cases = make_cases(problem, densities, implementations)
    refreshes = {
      name: min(case.refresh() for _ in range(2))
      for name, case in cases.items()
    }
    seconds = record.interleave({'dense': dense, **cases}, rounds, warm_ups=1)
    best = ideal(problem, densities)
    middle = 1e3 * statistics.median(seconds['dense'])
    figures.add(f'{problem.name}, dense', 'time', middle, 'ms', rounds)
    for name, case in cases.items():
      extra = refreshes[name] / REFRESH_EVERY
      times = [second + extra for second in seconds[name]]
      ratio = record.ratio(times, seconds['dense'])
      label = '{:g}% / {:g}%'.format(*(100 * d for d in densities))
      label = f'{problem.name}, {label}, {name}'
      figures.add(label, 'ratio', ratio, rounds=rounds)
      figures.add(label, 'to ideal', ratio / best, rounds=rounds)
      figures.add(label, 'refresh', refreshes[name], 's')
      figures.add(label, 'state', case.state_bytes() / dense.state_bytes())
      figures.add(label, 'peak', case.peak_bytes() / 1e6, 'MB')
    del cases
    gc.collect()


def main() -> None:
  given, figures = record.start(
    'compact',
    __doc__,
    only={'choices': networks.PROBLEMS, 'help': 'one network'},
    kernels={'nargs': '*', 'choices': ('native', 'xla')},
  )
  chosen = given.kernels or dict.fromkeys(['xla', kernels.implementation()])
  for name, make in networks.PROBLEMS.items():
    if given.only in (None, name):
      rounds = 2 if given.quick else ROUNDS[name]
      compare(make(), tuple(chosen), rounds, figures)
  figures.write(given.record)


if __name__ == '__main__':
  main()
