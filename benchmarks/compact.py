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
from experiments import flops as costs
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

  def __init__(
    self, problem, params, state, update, weights_of=sparsity.forward_weights
  ):
    def step(params, state, batch):
      weights = weights_of(params, state)
      gradients = sparsity.grad(problem.loss)(weights, batch)
      updates, state = update(gradients, state, params)
      return optax.apply_updates(params, updates), state

    self.carry = jax.tree.map(jnp.copy, params), state  # donated
    self.batch = problem.batch
    step = jax.jit(step, donate_argnums=(0, 1))
    self.compiled = step.lower(*self.carry, self.batch).compile()

  def __call__(self) -> Any:
    """Makes a step."""
    self.carry = self.compiled(*self.carry, self.batch)
    return self.carry

  def refresh(self) -> float:
    """Returns the seconds by which a step that refreshes takes longer."""
    params, state = self.carry
    self.carry = params, state._replace(count=jnp.int32(REFRESH_EVERY - 1))
    due, usual = (_seconds(self) for _ in range(2))
    return due - usual

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


class Compact(Case):
  """A compact step, and its refresh between steps."""

  def __init__(self, problem, training):
    params, state, self.host_params = training.init(problem.params)
    self.training = training
    super().__init__(problem, params, state, training.update)

  def refresh(self) -> float:
    """Returns the seconds of a refresh."""

    def refresh():
      *carry, self.host_params = self.training.refresh(
        *self.carry, self.host_params
      )
      self.carry = tuple(carry)
      return self.carry

    return _seconds(refresh)


def _seconds(function) -> float:
  start = time.perf_counter()
  jax.block_until_ready(function())
  return time.perf_counter() - start


def make_cases(problem, densities, implementations) -> dict[str, Case]:
  tx = topkast.topkast(
    OPTIMIZER,
    forward_density=densities[0],
    backward_density=densities[1],
    refresh_every=REFRESH_EVERY,
    dense=problem.dense,
  )
  params, training = problem.params, sparsity.compact.compact(tx)
  cases = {'masked': Case(problem, params, tx.init(params), tx.update)}
  for name in implementations:
    with kernels.use(name):
      cases[f'compact, {name}'] = Compact(problem, training)
  return cases


def ideal(problem, densities) -> float:
  """Returns the FLOPs of a step as a share of the dense step's."""
  network = flops.count(problem.loss, problem.params, problem.batch)
  section = {
    'name': 'topkast', 'forward_density': densities[0],
    'backward_density': densities[1], 'dense': problem.dense, 'exclude': (),
  }  # fmt: skip
  shares = costs.densities(section, problem.params)
  return flops.train(network, *shares) / flops.train(network)


def compare(problem, implementations, rounds: int, figures) -> None:
  params, update = problem.params, OPTIMIZER.update
  state = OPTIMIZER.init(params)
  dense = Case(problem, params, state, update, lambda params, _: params)
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
