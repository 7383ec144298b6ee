"""What a training step costs, as a multiple of the plain step.

LeNet-300-100, batch 60, SGD, a chunk of steps under one scan, random data:

  python benchmarks/step.py [--quick]

Each case is a function that returns an initial carry and a pure step. They are
timed in turns; the multiple is the median of those of the single rounds.
"""

import argparse
from collections.abc import Callable
import functools
import pathlib
import statistics
import sys
from typing import Any

# Run as a script, Python looks for packages next to it only.
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from benchmarks import timing
import powerprop

BATCH = 60
ALPHAS = (1, 2, 3, 4, 1.375, 1.3)

Step = Callable[[Any, Any], tuple[Any, jax.Array]]


@hk.without_apply_rng
@hk.transform
def net(images: jax.Array) -> jax.Array:
  return hk.nets.MLP([300, 100, 10])(images)


def loss(weights: hk.Params, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
  images, labels = batch
  return jnp.mean(
    optax.softmax_cross_entropy_with_integer_labels(
      net.apply(weights, images), labels
    )
  )


def initial() -> hk.Params:
  return net.init(jax.random.key(0), jnp.zeros((1, 784)))


def plain() -> tuple[Any, Step]:
  """The dense network."""
  tx = optax.sgd(0.1)
  params = initial()

  def step(carry, batch):
    params, state = carry
    value, grads = jax.value_and_grad(loss)(params, batch)
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), value

  return (params, tx.init(params)), step


def wrapped(alpha: float) -> tuple[Any, Step]:
  """Powerprop., the optimiser living in theta."""
  tx = powerprop.powerprop(optax.sgd(0.1), alpha)
  params = powerprop.from_weights(initial(), alpha)

  def step(carry, batch):
    params, state = carry
    weights = powerprop.to_weights(params, alpha)
    value, grads = jax.value_and_grad(loss)(weights, batch)
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), value

  return (params, tx.init(params)), step


def through(alpha: float) -> tuple[Any, Step]:
  """Powerprop., differentiated through."""
  tx = optax.sgd(0.1)
  params = powerprop.from_weights(initial(), alpha)

  def step(carry, batch):
    params, state = carry
    value, grads = jax.value_and_grad(
      lambda params: loss(powerprop.to_weights(params, alpha), batch)
    )(params)
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), value

  return (params, tx.init(params)), step


def cases() -> dict[str, tuple[Any, Step]]:
  """Returns the cases by name, the first the one others are compared with."""
  return {
    'plain': plain(),
    **{f'powerprop alpha={alpha}': wrapped(alpha) for alpha in ALPHAS},
    **{f'through theta alpha={alpha}': through(alpha) for alpha in (2, 1.375)},
  }


def compiled(carry: Any, step: Step, batches: Any) -> Callable[[], Any]:
  """Returns a function that runs one step for each of `batches`."""
  run = jax.jit(lambda carry, batches: jax.lax.scan(step, carry, batches))
  return functools.partial(run, carry, batches)


def main() -> None:
  parser = argparse.ArgumentParser(description='Times training steps.')
  parser.add_argument('--quick', action='store_true', help='seconds, noisy')
  quick = parser.parse_args().quick
  num_steps, repeats = (20, 5) if quick else (100, 31)

  keys = jax.random.split(jax.random.key(1))
  batches = (
    jax.random.uniform(keys[0], (num_steps, BATCH, 784)),
    jax.random.randint(keys[1], (num_steps, BATCH), 0, 10),
  )
  seconds = timing.interleave(
    {name: compiled(*case, batches) for name, case in cases().items()},
    repeats,
  )
  first, *_ = seconds.values()
  print(f'{"step":28} {"ms":>8} {"x plain":>8}')
  for name, times in seconds.items():
    ms = 1e3 * statistics.median(times) / num_steps
    ratio = statistics.median(
      time / plain_time for time, plain_time in zip(times, first, strict=True)
    )
    print(f'{name:28} {ms:8.3f} {ratio:8.2f}')


if __name__ == '__main__':
  main()
