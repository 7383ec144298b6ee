"""The cost of a training step, as a multiple of the dense Optax step.

  python -m benchmarks.step [--quick] [--only=lenet|mlp] [--record=DIR]

Two networks on random data: LeNet-300-100 with batches of 60, and a perceptron
of 16 million weights (1024-3072-3072-1024) with batches of 128. A call makes
100 steps under one scan, with one refresh of Top-KAST. Top-KAST runs on masked
arrays, and `skipping` on `sparsity.masked_weights`. The optimizer of Powerprop.
is in theta.
"""

import functools

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
# Title, network, and rounds.
NETWORKS = {
  'lenet': ('LeNet-300-100', LENET, 31),
  'mlp': ('perceptron of 16M weights', networks.mlp, 5),
}


def make_case(problem, tx, params, apply_mask=lambda p, _: p):
  """Returns a function that makes `NUM_STEPS` steps."""

  def step(carry, _):
    params, state, batch = carry
    value_and_grad = sparsity.value_and_grad(problem.loss)
    value, grads = value_and_grad(apply_mask(params, state), batch)
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state, batch), value

  run = functools.partial(jax.lax.scan, step, length=NUM_STEPS)
  return functools.partial(
    jax.jit(run), (params, tx.init(params), problem.batch)
  )


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


def topkast_cases(problem, inner, name):
  """Returns the dense step and Top-KAST, 10% forward and 20% backward."""
  tx = topkast.topkast(
    inner,
    forward_density=0.1,
    backward_density=0.2,
    refresh_every=NUM_STEPS,
  )
  skip = functools.partial(sparsity.masked_weights, tx)
  params = problem.params
  return {
    f'dense, {name}': make_case(problem, inner, params),
    f'Top-KAST, {name}': make_case(problem, tx, params, topkast.weights),
    f'Top-KAST skipping, {name}': make_case(problem, tx, params, skip),
  }


def main() -> None:
  only = {'choices': NETWORKS, 'help': 'one network'}
  given, figures = record.start('step', __doc__, only=only)
  sgd, adam = optax.sgd(0.1), optax.adam(1e-3)
  for key, (title, make, rounds) in NETWORKS.items():
    if given.only not in (None, key):
      continue
    problem, rounds = make(), max(1, rounds // 6) if given.quick else rounds
    with_sgd = topkast_cases(problem, sgd, 'SGD')
    if key == 'lenet':
      with_sgd |= powerprop_cases(problem, sgd)
    with_adam = topkast_cases(problem, adam, 'Adam')
    prefix = f'{title}: '
    figures.compare(with_sgd, rounds, 'dense, SGD', prefix, NUM_STEPS)
    figures.compare(with_adam, rounds, 'dense, Adam', prefix, NUM_STEPS)
  figures.write(given.record)


if __name__ == '__main__':
  main()
