"""The cost of a training step, as a multiple of the dense Optax step.

  python -m benchmarks.step [--quick] [--only=lenet|mlp|resnet50] [--record=DIR]

Two networks on random data: LeNet-300-100 with batches of 60, and a perceptron
of 16 million weights (1024-3072-3072-1024) with batches of 128. A call makes
100 steps under one scan, with one refresh of Top-KAST. Top-KAST runs on masked
arrays, and `skipping` on `sparsity.masked_weights`. ResNet-50, which is that of
benchmarks/vision.py, takes minutes and runs on request only.
"""

import argparse
from collections.abc import Callable
import functools
import statistics
from typing import Any
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from benchmarks import record
from benchmarks import timing
from benchmarks import vision
import powerprop
import sparsity
import topkast

LENET = (784, 300, 100, 10)
MLP = (1024, 3072, 3072, 1024)
ALPHAS = (1, 2, 3, 4, 1.375, 1.3)
REFRESH_EVERY = 100

Case = Callable[[], tuple[Any, Any]]


class Problem(NamedTuple):
  """A network and its loss."""

  params: hk.Params
  loss: Callable[[hk.Params, Any], jax.Array]


def make_problem(widths) -> Problem:
  def perceptron(images):
    for width in widths[1:-1]:
      images = jax.nn.relu(sparsity.modules.Linear(width)(images))
    return sparsity.modules.Linear(widths[-1])(images)

  net = hk.without_apply_rng(hk.transform(perceptron))

  def loss(weights, batch):
    images, labels = batch
    logits = net.apply(weights, images)
    return jnp.mean(
      optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    )

  return Problem(net.init(jax.random.key(0), jnp.zeros((1, widths[0]))), loss)


def make_batches(widths, batch_size: int, num_steps: int):
  keys = jax.random.split(jax.random.key(1))
  return (
    jax.random.uniform(keys[0], (num_steps, batch_size, widths[0])),
    jax.random.randint(keys[1], (num_steps, batch_size), 0, widths[-1]),
  )


def make_case(problem: Problem, tx, params, apply_mask=lambda p, _: p):
  """Returns the carry of a scan and its training step."""

  def step(carry, batch):
    params, state = carry
    value_and_grad = sparsity.value_and_grad(problem.loss)
    value, grads = value_and_grad(apply_mask(params, state), batch)
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), value

  return (params, tx.init(params)), step


def dense(problem: Problem, inner):
  return make_case(problem, inner, problem.params)


def wrapped(problem: Problem, inner, alpha: float):
  """Returns Powerprop. with the optimizer in theta."""
  return make_case(
    problem,
    powerprop.powerprop(inner, alpha),
    powerprop.from_weights(problem.params, alpha),
    lambda params, _: powerprop.to_weights(params, alpha),
  )


def through(problem: Problem, inner, alpha: float):
  """Returns Powerprop. differentiated through."""
  phi_loss = lambda phi, batch: problem.loss(  # noqa: E731
    powerprop.to_weights(phi, alpha), batch
  )
  params = powerprop.from_weights(problem.params, alpha)
  return make_case(Problem(params, phi_loss), inner, params)


def masked(problem: Problem, inner, skipping: bool = False):
  """Returns Top-KAST, 10% forward and 20% backward."""
  tx = topkast.topkast(
    inner,
    forward_density=0.1,
    backward_density=0.2,
    refresh_every=REFRESH_EVERY,
  )
  apply_mask = topkast.weights
  if skipping:
    apply_mask = functools.partial(sparsity.masked_weights, tx)
  return make_case(problem, tx, problem.params, apply_mask)


def compare(title: str, cases, batches, repeats: int, figures):
  """Prints each case as a multiple of the dense case before it."""
  num_steps = len(batches[0])
  run = {
    name: functools.partial(
      jax.jit(functools.partial(jax.lax.scan, step)), carry, batches
    )
    for name, (carry, step) in cases.items()
  }
  seconds = timing.interleave(run, repeats)
  print(f'{title}, {num_steps} steps a call, {repeats} rounds')
  base = None
  for name, times in seconds.items():
    base = times if name.startswith('dense') else base
    ratio = timing.ratio(times, base)
    ms = 1e3 * statistics.median(times) / num_steps
    print(f'  {name:28} {ms:9.3f} ms {ratio:6.2f} x', flush=True)
    figures.add(f'{title}: {name}', 'time', ms, 'ms', repeats)
    figures.add(f'{title}: {name}', 'ratio', ratio, rounds=repeats)


def main() -> None:
  parser = argparse.ArgumentParser(description='Times training steps.')
  parser.add_argument('--quick', action='store_true', help='noisy')
  parser.add_argument(
    '--only', choices=('lenet', 'mlp', 'resnet50'), help='one network'
  )
  record.add_argument(parser)
  arguments = parser.parse_args()
  figures = record.Record('step')
  quick, only = arguments.quick, arguments.only
  if only == 'resnet50':
    kept = [f'--record={arguments.record}'] if arguments.record else []
    vision.main([f'--rounds={1 if quick else 9}', *kept])
    return
  sgd, adam = optax.sgd(0.1), optax.adam(1e-3)
  if only != 'mlp':
    lenet = make_problem(LENET)
    compare(
      'LeNet-300-100',
      {
        'dense, SGD': dense(lenet, sgd),
        'Top-KAST, SGD': masked(lenet, sgd),
        'Top-KAST skipping, SGD': masked(lenet, sgd, skipping=True),
        **{
          f'Powerprop. {alpha}, SGD': wrapped(lenet, sgd, alpha)
          for alpha in ALPHAS
        },
        **{
          f'through theta {alpha}, SGD': through(lenet, sgd, alpha)
          for alpha in (2, 1.375)
        },
        'dense, Adam': dense(lenet, adam),
        'Top-KAST, Adam': masked(lenet, adam),
        'Top-KAST skipping, Adam': masked(lenet, adam, skipping=True),
      },
      make_batches(LENET, 60, REFRESH_EVERY),
      5 if quick else 31,
      figures,
    )
  if only != 'lenet':
    mlp = make_problem(MLP)
    compare(
      'perceptron of 16M weights',
      {
        'dense, SGD': dense(mlp, sgd),
        'Top-KAST, SGD': masked(mlp, sgd),
        'Top-KAST skipping, SGD': masked(mlp, sgd, skipping=True),
        'dense, Adam': dense(mlp, adam),
        'Top-KAST, Adam': masked(mlp, adam),
        'Top-KAST skipping, Adam': masked(mlp, adam, skipping=True),
      },
      make_batches(MLP, 128, REFRESH_EVERY),
      1 if quick else 5,
      figures,
    )
  figures.write(arguments.record)


if __name__ == '__main__':
  main()
