"""The cost of a training step, as a multiple of the dense Optax step.

  python -m benchmarks.step [--quick] [--only=lenet|mlp|resnet18] [--record=DIR]

Three networks on random data: LeNet-300-100 with batches of 60, a perceptron of
16 million weights (1024-3072-3072-1024) with batches of 128, and ResNet-18 with
batches of 32 images of 32 x 32.

First single steps with SGD and momentum, on masked arrays at 10% (Top-KAST 10%
forward, 20% backward): an ordinary step, one that refreshes, live memory (the
program's arguments, results and temporaries), CPU seconds of compiling. Then
calls of 100 steps under one scan with one refresh; `skipping` is on
`sparsity.masked_weights`. The optimizer of Powerprop. is in theta.
"""

import functools
import statistics
import time

import jax
import optax

from benchmarks import networks
from benchmarks import record
import powerprop
import sparsity
import topkast

ALPHAS = (1, 2, 3, 4, 1.375, 1.3)
NUM_STEPS = 100  # and updates between refreshes
LENET = functools.partial(networks.mlp, (784, 300, 100, 10), 60)
# Title, network, rounds, and ordinary steps of a round.
NETWORKS = {
  'lenet': ('LeNet-300-100', LENET, 31, 20),
  'mlp': ('perceptron of 16M weights', networks.mlp, 5, 3),
  'resnet18': ('ResNet-18', networks.resnet18, 5, 1),
}


def make_step(problem, tx, apply_mask=lambda params, _: params):
  """Returns one training step."""

  def step(params, state, batch):
    value_and_grad = sparsity.value_and_grad(problem.loss)
    value, grads = value_and_grad(apply_mask(params, state), batch)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value

  return step


def methods(inner):
  """Returns the methods whose single steps are timed."""
  often = {'refresh_every': NUM_STEPS}
  return {
    'dense': inner,
    'Top-KAST': topkast.topkast(
      inner, forward_density=0.1, backward_density=0.2, **often
    ),
    'RigL': sparsity.rigl(inner, density=0.1, stop_refresh_at=10**6, **often),
    'SET': sparsity.set_(inner, density=0.1, **often),
  }


class Single:
  """A compiled step that updates its arguments in place."""

  def __init__(self, problem, tx):
    is_sparse = hasattr(tx, 'method')
    mask = [sparsity.forward_weights] if is_sparse else []
    step = make_step(problem, tx, *mask)
    params = jax.tree.map(jax.numpy.copy, problem.params)
    state = tx.init(params)
    jitted = jax.jit(step, donate_argnums=(0, 1))
    lowered = jitted.lower(params, state, problem.batch)
    begin = time.process_time()
    self.step = lowered.compile()
    self.compile_seconds = time.process_time() - begin
    self.arrays, self.batch = (params, state), problem.batch
    self.is_sparse = is_sparse

  @property
  def live_bytes(self) -> int:
    """Bytes of arguments, results and temporaries."""
    x = self.step.memory_analysis()
    total = x.argument_size_in_bytes + x.output_size_in_bytes
    return total + x.temp_size_in_bytes - x.alias_size_in_bytes

  def time(self, num_steps: int, count: int) -> float:
    """Returns the seconds of a step, the first being the count-th update."""
    params, state = self.arrays
    if self.is_sparse:
      before = jax.numpy.full_like(state.count, count - 1)
      state = jax.block_until_ready(state._replace(count=before))
    begin = time.perf_counter()
    for _ in range(num_steps):
      params, state, _ = self.step(params, state, self.batch)
    jax.block_until_ready(params)
    self.arrays = params, state
    return (time.perf_counter() - begin) / num_steps


def time_single(figures, problem, prefix, rounds, num_steps):
  """Adds ordinary steps, refreshing steps and live memory of each method."""
  singles = {
    name: Single(problem, tx)
    for name, tx in methods(optax.sgd(0.1, momentum=0.9)).items()
  }
  ordinary = {name: [] for name in singles}
  refresh = {name: [] for name in singles}
  for i in range(rounds + 1):  # the first fills the caches
    for name, single in singles.items():
      seconds = single.time(num_steps, 1), single.time(1, NUM_STEPS)
      if i:
        ordinary[name].append(seconds[0])
        refresh[name].append(seconds[1])
  dense = singles['dense']
  for name, single in singles.items():
    case, base = f'{prefix}single step, {name}', ordinary['dense']
    milliseconds = 1e3 * statistics.median(ordinary[name])
    figures.add(case, 'time', milliseconds, 'ms', rounds)
    for figure, times in (('ordinary', ordinary), ('refresh', refresh)):
      figures.add(case, figure, record.ratio(times[name], base), rounds=rounds)
    figures.add(case, 'memory', single.live_bytes / dense.live_bytes)
    compiling = single.compile_seconds / dense.compile_seconds
    figures.add(case, 'compile', compiling)


def make_case(problem, tx, params, *apply_mask):
  """Returns a function that makes `NUM_STEPS` steps."""
  step = make_step(problem, tx, *apply_mask)

  def body(carry, _):
    *state, value = step(*carry)
    return (*state, carry[-1]), value

  run = functools.partial(jax.lax.scan, body, length=NUM_STEPS)
  carry = params, tx.init(params), problem.batch
  return functools.partial(jax.jit(run), carry)


def powerprop_cases(problem, inner):
  """Returns Powerprop. with the optimizer in theta."""
  cases = {}
  for alpha in ALPHAS:
    to_weights = functools.partial(powerprop.to_weights, alpha=alpha)
    params = powerprop.from_weights(problem.params, alpha)
    cases[f'Powerprop. {alpha}, SGD'] = make_case(
      problem,
      powerprop.powerprop(inner, alpha),
      params,
      lambda params, _, to_weights=to_weights: to_weights(params),
    )
  return cases


def topkast_cases(problem, inner, own_adam, name):
  """Returns the dense step and Top-KAST, 10% forward and 20% backward."""

  def make(inner):
    return topkast.topkast(
      inner,
      forward_density=0.1,
      backward_density=0.2,
      refresh_every=NUM_STEPS,
    )

  tx, params = make(inner), problem.params
  skip = functools.partial(sparsity.masked_weights, tx)
  cases = {
    f'dense, {name}': make_case(problem, inner, params),
    f'Top-KAST, {name}': make_case(problem, tx, params, topkast.weights),
    f'Top-KAST skipping, {name}': make_case(problem, tx, params, skip),
  }
  if own_adam:
    tx = make(own_adam)
    cases['Top-KAST, sparsity.adam'] = make_case(
      problem, tx, params, topkast.weights
    )
  return cases


def main() -> None:
  only = {'choices': NETWORKS, 'help': 'one network'}
  given, figures = record.start('step', __doc__, only=only)
  jax.config.update('jax_enable_compilation_cache', False)
  sgd, adam = optax.sgd(0.1), optax.adam(1e-3)
  for key, (title, make, rounds, num_steps) in NETWORKS.items():
    if given.only not in (None, key):
      continue
    problem, rounds = make(), max(1, rounds // 6) if given.quick else rounds
    prefix = f'{title}: '
    time_single(figures, problem, prefix, rounds, num_steps)
    if key == 'resnet18':
      continue  # convolutions are slow under a scan on a CPU
    with_sgd = topkast_cases(problem, sgd, None, 'SGD')
    if key == 'lenet':
      with_sgd |= powerprop_cases(problem, sgd)
    with_adam = topkast_cases(problem, adam, sparsity.adam(1e-3), 'Adam')
    figures.compare(with_sgd, rounds, 'dense, SGD', prefix, NUM_STEPS)
    figures.compare(with_adam, rounds, 'dense, Adam', prefix, NUM_STEPS)
  figures.write(given.record)


if __name__ == '__main__':
  main()
