"""Tokens a second of Transformer-XL's training step, and what methods cost.

  python -m benchmarks.language [--quick] [--record=DIR]

A model of 5 million parameters (6 layers, d_model 256), bytes, segments of 64
with a memory of 64, batches of 8, Adam. `plain` is the same step with attention
and recurrence written straight, in einsum, in one function of Haiku; both are
checked to give the same losses. Top-KAST refreshes its sets once in each call,
that is every 20 steps. The cases are timed in turns; a multiple is the median
of those of the single rounds.
"""

import argparse
import functools
import pathlib
import statistics
import sys

# Run as a script, Python looks for packages next to it only.
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import record
from benchmarks import timing
from experiments.models import transformer_xl
import topkast

NUM_LAYERS, D_MODEL, NUM_HEADS, D_HEAD, D_INNER = 6, 256, 8, 32, 1024
BATCH, SEGMENT, VOCABULARY = 8, 64, 256
DROPOUT = 0.1

CONFIG = {
  'vocab_size': VOCABULARY,
  'num_layers': NUM_LAYERS,
  'd_model': D_MODEL,
  'num_heads': NUM_HEADS,
  'd_head': D_HEAD,
  'd_inner': D_INNER,
  'd_embed': D_MODEL,
  'dropout': DROPOUT,
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


def plain(tokens, targets, memory, rate):
  """Returns losses and the next memory, [L, B, M, D]; nothing is shared."""

  def parameter(name, *shape):
    return hk.get_parameter(
      name, shape, init=hk.initializers.RandomNormal(0.02)
    )

  def drop(x):
    return hk.dropout(hk.next_rng_key(), rate, x) if rate else x

  def normalize(x, name):
    x = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(
      x.var(-1, keepdims=True) + 1e-5
    )
    scale, offset = (
      parameter(f'{name}/s', D_MODEL),
      parameter(f'{name}/o', D_MODEL),
    )
    return x * scale + offset

  num_queries, num_keys = tokens.shape[1], tokens.shape[1] + memory.shape[2]
  table = parameter('table', VOCABULARY, D_MODEL)
  u = parameter('u', NUM_HEADS, D_HEAD)
  v = parameter('v', NUM_HEADS, D_HEAD)
  distances = jnp.arange(num_keys - 1, -1, -1.0)
  angles = jnp.einsum(
    'k,f->kf', distances, 10_000 ** -(jnp.arange(0, D_MODEL, 2) / D_MODEL)
  )
  positions = drop(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1))
  place = jnp.arange(num_keys)
  hidden = place[None] > place[-num_queries:, None]
  x = drop(table[tokens] * D_MODEL**0.5)
  new_memory = []
  for i in range(NUM_LAYERS):
    keys = jnp.concatenate([jax.lax.stop_gradient(memory[i]), x], 1)
    new_memory.append(keys[:, -memory.shape[2] :])
    shape = D_MODEL, NUM_HEADS, D_HEAD
    q = jnp.einsum('btd,dnh->btnh', x, parameter(f'{i}/q', *shape))
    k = jnp.einsum('bkd,dnh->bknh', keys, parameter(f'{i}/k', *shape))
    values = jnp.einsum('bkd,dnh->bknh', keys, parameter(f'{i}/v', *shape))
    r = jnp.einsum('kd,dnh->knh', positions, parameter(f'{i}/r', *shape))
    content = jnp.einsum('btnh,bknh->bntk', q + u, k)
    position = jnp.einsum('btnh,knh->bntk', q + v, r)
    position = jnp.pad(position, ((0, 0), (0, 0), (0, 0), (1, 0)))
    position = position.reshape(*content.shape[:2], num_keys + 1, num_queries)
    position = position[:, :, 1:].reshape(content.shape)
    scores = (content + position) / D_HEAD**0.5
    shares = jax.nn.softmax(jnp.where(hidden, -1e30, scores))
    seen = jnp.einsum('bntk,bknh->btnh', shares, values)
    output = parameter(f'{i}/w', NUM_HEADS, D_HEAD, D_MODEL)
    x = normalize(x + drop(jnp.einsum('btnh,nhd->btd', seen, output)), f'{i}/a')
    y = jnp.einsum('btd,df->btf', x, parameter(f'{i}/1', D_MODEL, D_INNER))
    y = drop(jax.nn.relu(y + parameter(f'{i}/1b', D_INNER)))
    y = jnp.einsum('btf,fd->btd', y, parameter(f'{i}/2', D_INNER, D_MODEL))
    x = normalize(x + drop(y + parameter(f'{i}/2b', D_MODEL)), f'{i}/f')
  logits = jnp.einsum('btd,vd->btv', drop(x), table) + parameter(
    'b', VOCABULARY
  )
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
  return losses, jax.lax.stop_gradient(jnp.stack(new_memory))


def to_plain(params) -> hk.Params:
  """Returns the parameters of the model as those of `plain`."""
  net = 'transformer_xl'
  flat = {
    'table': params[f'{net}/embedding']['embeddings_0'],
    'b': params[f'{net}/softmax']['bias_0'],
    'u': params[net]['r_w_bias'],
    'v': params[net]['r_r_bias'],
  }
  heads = {'query': 'q', 'key': 'k', 'value': 'v', 'position': 'r'}
  for i in range(NUM_LAYERS):
    attention = f'{net}/layer_{i}/attention'
    feed_forward = f'{net}/layer_{i}/feed_forward'
    for name, short in heads.items():
      w = params[f'{attention}/{name}']['w']
      flat[f'{i}/{short}'] = w.reshape(D_MODEL, NUM_HEADS, D_HEAD)
    w = params[f'{attention}/output']['w']
    flat[f'{i}/w'] = w.reshape(NUM_HEADS, D_HEAD, D_MODEL)
    for module, short in ((attention, 'a'), (feed_forward, 'f')):
      norm = params[f'{module}/layer_norm']
      flat[f'{i}/{short}/s'] = norm['scale']
      flat[f'{i}/{short}/o'] = norm['offset']
    for number in (0, 1):
      linear = params[f'{feed_forward}/linear_{number}']
      flat[f'{i}/{number + 1}'] = linear['w']
      flat[f'{i}/{number + 1}b'] = linear['b']
  return {'~': flat}


def make_case(tx, params, memory, losses, see=lambda params, _: params):
  """Returns a carry and a training step; `losses` also gives the memory."""

  def step(carry, batch):
    params, state, memory, number = carry
    key = jax.random.fold_in(jax.random.key(0), number)

    def loss(weights):
      nll, after = losses(weights, memory, key, *batch)
      return jnp.mean(nll), after

    (value, memory), grads = jax.value_and_grad(loss, has_aux=True)(
      see(params, state)
    )
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    return (params, state, memory, number + 1), value

  return (params, tx.init(params), memory, jnp.zeros([], jnp.int32)), step


def make_cases(refresh_every: int):
  """Returns carries and steps by name."""
  model = transformer_xl.transformer_xl(**CONFIG)
  params = jax.jit(model.init)(jax.random.key(0))
  straight = hk.transform(plain)

  def losses(weights, memory, key, tokens, targets):
    return model.apply(weights, memory, key, tokens, targets, True)

  def plain_losses(weights, memory, key, tokens, targets):
    return straight.apply(weights, key, tokens, targets, memory, DROPOUT)

  # A memory that is full, so that both see as much.
  full = model.memory(BATCH, SEGMENT)
  full = full._replace(length=jnp.full(BATCH, SEGMENT, jnp.int32))
  stacked = jnp.stack(full.hidden)
  check(model, straight, params, full, stacked)
  adam = optax.adam(2.5e-4)
  sparse = topkast.topkast(
    adam,
    forward_density=0.1,
    backward_density=0.2,
    refresh_every=refresh_every,
  )
  return {
    'plain': make_case(adam, to_plain(params), stacked, plain_losses),
    'dense': make_case(adam, params, full, losses),
    'Top-KAST': make_case(sparse, params, full, losses, topkast.weights),
  }


def check(model, straight, params, full, stacked) -> None:
  """Checks that both models have the same losses without dropout."""
  tokens, targets = (batch[0] for batch in make_batches(1))
  expected, _ = model.apply(params, full, None, tokens, targets, False)
  found, _ = straight.apply(
    to_plain(params), None, tokens, targets, stacked, 0.0
  )
  np.testing.assert_allclose(found, expected, atol=1e-4)


def make_batches(num_steps: int):
  text = np.random.default_rng(0).integers(
    0, VOCABULARY, (num_steps, BATCH, SEGMENT + 1), np.int32
  )
  return text[..., :-1], text[..., 1:]


def main() -> None:
  parser = argparse.ArgumentParser(description='Times Transformer-XL.')
  parser.add_argument('--quick', action='store_true', help='noisy')
  record.add_argument(parser)
  given = parser.parse_args()
  quick, figures = given.quick, record.Record('language')
  num_steps, repeats = (5, 5) if quick else (20, 11)
  batches = make_batches(num_steps)
  run = {
    name: functools.partial(
      jax.jit(functools.partial(jax.lax.scan, step)), carry, batches
    )
    for name, (carry, step) in make_cases(num_steps).items()
  }
  seconds = timing.interleave(run, repeats)
  print(f'{num_steps} steps a call, {repeats} rounds')
  for name, base in (
    ('plain', 'plain'),
    ('dense', 'plain'),
    ('Top-KAST', 'dense'),
  ):
    ratio = statistics.median(
      a / b for a, b in zip(seconds[name], seconds[base], strict=True)
    )
    speed = num_steps * BATCH * SEGMENT / statistics.median(seconds[name])
    print(f'  {name:10} {speed:9.0f} tokens/s, time {ratio:5.2f} x {base}')
    figures.add(name, 'speed', speed, 'tokens/s', repeats)
    figures.add(name, 'ratio', ratio, f'x {base}', repeats)
  figures.write(given.record)


if __name__ == '__main__':
  main()
