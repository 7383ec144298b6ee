"""Tokens per second of Transformer-XL's training step, dense and Top-KAST.

  python -m benchmarks.language [--quick] [--record=DIR]

A model of 5 million parameters (6 layers of width 256), bytes, segments of 64
with a memory of 64, batches of 8, Adam; masked arrays, sets refreshed every 20
steps.
"""

import argparse
import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import record
from benchmarks import timing
from experiments.models import transformer_xl
import topkast

BATCH, SEGMENT, VOCABULARY = 8, 64, 256
CONFIG = {
  'vocab_size': VOCABULARY,
  'num_layers': 6,
  'd_model': 256,
  'num_heads': 8,
  'd_head': 32,
  'd_inner': 1024,
  'd_embed': 256,
  'dropout': 0.1,
  'attention_dropout': 0.0,
  'pre_norm': False,
  'tie_biases': True,
  'tie_embeddings': True,
  'tie_projections': (False,),
  'cutoffs': (),
  'div_val': 1,
  'clamp_len': None,
  'same_length': False,
  'compute_dtype': 'float32',
  'remat': False,
}


def make_case(model, tx, params, apply_mask):
  """Returns the carry of a scan and its training step."""

  def step(carry, batch):
    params, state, memory, number = carry
    key = jax.random.fold_in(jax.random.key(0), number)

    def loss(weights):
      nll, after = model.apply(weights, memory, key, *batch, True)
      return jnp.mean(nll), after

    weights = apply_mask(params, state)
    (value, memory), grads = jax.value_and_grad(loss, has_aux=True)(weights)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    return (params, state, memory, number + 1), value

  full = model.memory(BATCH, SEGMENT)
  full = full._replace(length=jnp.full(BATCH, SEGMENT, jnp.int32))
  return (params, tx.init(params), full, jnp.zeros([], jnp.int32)), step


def make_cases(refresh_every: int):
  """Returns carries and steps by name."""
  model = transformer_xl.transformer_xl(**CONFIG)
  params = jax.jit(model.init)(jax.random.key(0))
  adam = optax.adam(2.5e-4)
  sparse = topkast.topkast(
    adam,
    forward_density=0.1,
    backward_density=0.2,
    refresh_every=refresh_every,
  )
  return {
    'dense': make_case(model, adam, params, lambda params, _: params),
    'Top-KAST': make_case(model, sparse, params, topkast.weights),
  }


def make_batches(num_steps: int):
  text = np.random.default_rng(0).integers(
    0, VOCABULARY, (num_steps, BATCH, SEGMENT + 1), np.int32
  )
  return text[..., :-1], text[..., 1:]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--quick', action='store_true', help='noisy')
  record.add_argument(parser)
  given = parser.parse_args()
  figures = record.Record('language')
  num_steps, repeats = (5, 5) if given.quick else (20, 11)
  batches = make_batches(num_steps)
  run = {
    name: functools.partial(
      jax.jit(functools.partial(jax.lax.scan, step)), carry, batches
    )
    for name, (carry, step) in make_cases(num_steps).items()
  }
  seconds = timing.interleave(run, repeats)
  print(f'{num_steps} steps a call, {repeats} rounds')
  for name, times in seconds.items():
    ratio = timing.ratio(times, seconds['dense'])
    speed = num_steps * BATCH * SEGMENT / statistics.median(times)
    print(f'  {name:10} {speed:9.0f} tokens/s, time {ratio:5.2f} x dense')
    figures.add(name, 'speed', speed, 'tokens/s', repeats)
    figures.add(name, 'ratio', ratio, rounds=repeats)
  figures.write(given.record)


if __name__ == '__main__':
  main()
