"""Every transformation of Optax inside and around a sparse method.

python -m tests.sparsity.optimizers

writes docs/optimizers.md. The list is that of optax and optax.contrib, so that
a new transformation is tried by itself.
"""

import functools
import inspect
import itertools
import pathlib
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

import sparsity
from sparsity import schedules
from tests import oracles

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'optimizers.md'
INTRODUCTION = """# Optimizers

Written by `python -m tests.sparsity.optimizers`, which tries every
transformation of optax {version} inside and around a method; a test compares. A
transformation works if entries outside the backward set stay bit for bit, the
sets keep their sizes, and all is finite; otherwise the error is given. State
that is not kept per parameter (rows and columns of `adafactor`, `flatten`) is
not reset for entries that return.

`optax.inject_hyperparams` goes inside, too: around it takes a method with all
arguments but `inner` and `seed` in `static_args`.

`optax.contrib.differentially_private_aggregate` takes gradients per example:
put it before the method, `optax.chain(aggregate, tx)`. `lookahead` holds
parameters of a class of its own, and cannot be inside.

| `optax.` | inside: `topkast.topkast(optimizer, ...)` | \
around: `transformation(topkast.topkast(...))` |
|---|---|---|
"""
SHAPES = {'a': {'w': (8, 6), 'b': (6,)}}
PARAMS = oracles.normal(SHAPES, 0)
TARGET = oracles.normal(SHAPES, 1)
WORKS = 'works'

# Required arguments by name, of which TRANSFORMED take a transformation.
ARGUMENTS = {
  'adv_optimizer': optax.chain(contrib.normalize(), optax.sgd(0.05)),
  'clipping': 0.1,
  'decay': 0.9,
  'eta': 0.01,
  'f': lambda updates, params=None: updates,
  'freeze_mask': {'a': {'w': False, 'b': True}},
  'gamma': 0.5,
  'l2_norm_clip': 1.0,
  'learning_rate': 0.05,
  'mask': {'a': {'w': True, 'b': False}},
  'max_backtracking_steps': 4,
  'max_consecutive_errors': 3,
  'max_delta': 0.1,
  'max_linesearch_steps': 4,
  'max_norm': 1.0,
  'measure': lambda updates, *_: optax.global_norm(updates),
  'measure_name': 'norm',
  'measures': {'norm': optax.global_norm},
  'noise_multiplier': 0.1,
  'param_labels': {'a': {'w': 'on', 'b': 'off'}},
  'seed': 0,
  'should_transform_fn': lambda step, *_, **__: step % 2 == 0,
  'slow_step_size': 0.5,
  'step_size': -0.1,
  'step_size_fn': lambda count: -0.1,
  'sync_period': 2,
  'threshold': 1.0,
}
TRANSFORMED = {
  **dict.fromkeys(
    ('args', 'base_optimizer', 'fast_optimizer', 'inner', 'optimizer', 'tx'),
    lambda tx: tx,
  ),
  'inner_factory': lambda tx: lambda: tx,
  'transforms': lambda tx: {'on': tx, 'off': optax.sgd(0.1)},
}


@functools.cache
def makers():
  """Returns functions from an optimizer to another, by name and side."""
  found = {}
  for module in (optax, contrib):
    for name, make in inspect.getmembers(module, callable):
      if name.startswith('_') or name[0].isupper():
        continue
      signature = inspect.signature(make)
      required = [
        p.name for p in signature.parameters.values() if p.default is p.empty
      ]
      given = ARGUMENTS.keys() | TRANSFORMED.keys() >= {*required}
      result = signature.return_annotation
      if 'GradientTransformation' not in str(result) and not (
        result is signature.empty and given
      ):
        continue
      sides = ('inside', 'around')[
        : 1 + any(p in TRANSFORMED for p in required)
      ]
      path = f'{module.__name__}.{name}'.removeprefix('optax.')
      make = functools.partial(_make, name, make, required)
      found[path] = dict.fromkeys(sides, make)
  return found


def _make(name, make, required, tx):
  arguments = {
    p: TRANSFORMED[p](tx) if p in TRANSFORMED else ARGUMENTS[p]
    for p in required
  }
  args = arguments.pop('args', None)
  if name == 'named_chain':
    return make(('first', args))
  made = make(args) if args else make(**arguments)
  return made() if name.startswith('inject') else made


def make_method(inner):
  """Returns a method whose sets move by a row every second update."""

  def init(weights, counts, key):
    indices = {
      path: jnp.arange(x.size).reshape(x.shape) % 4
      for path, x in weights.items()
    }
    return sparsity.ActiveSets(
      *({path: i < k for path, i in indices.items()} for k in (1, 2))
    )

  def refresh(now, counts):
    return jax.tree.map(lambda mask: jnp.roll(mask, 1, 0), now.sets)

  return sparsity.sparsify(
    inner,
    sparsity.Rule(init, refresh),
    sparsity.make_counts(forward_density=0.25, backward_density=0.5),
    is_due=schedules.every(2),
  )


def outcome(name, side, make_method):
  """Returns `WORKS`, or the error that a user gets."""
  make = makers()[name][side]
  plain = optax.sgd(0.05)
  with warnings.catch_warnings(), jax.numpy_rank_promotion('allow'):
    warnings.simplefilter('ignore')
    if side == 'around':
      return _attempt(lambda: make(make_method(plain)), jit=False)
    found = _attempt(lambda: make_method(make(plain)))
    if found == WORKS:
      return found
    alone = _attempt(lambda: make(plain), is_sparse=False)
  return found if alone == WORKS else f'not even alone: {alone}'


def _attempt(make, is_sparse=True, jit=True):
  """Returns `WORKS`, or the error without further arguments."""
  errors = []
  for extra in ((), ('value', 'grad', 'value_fn'), ('obj_fn',)):
    try:
      _train(make(), extra, is_sparse, jit)
    except AssertionError:
      raise
    except Exception as error:
      text = re.sub(r'[\s|`]+', ' ', str(error))
      errors.append(re.split(r'\. | At that', text)[0])
    else:
      return WORKS
  return errors[0]


def _train(tx, extra, is_sparse, jit):
  """Makes some steps; raises what the user sees, and asserts the rest."""

  def masked(params, state):
    params = getattr(params, 'fast', params)
    return sparsity.forward_weights(params, state) if is_sparse else params

  def loss(weights):
    apart = jax.tree.map(jnp.subtract, weights, TARGET)
    return optax.tree.norm(apart, squared=True) / 2

  def step(params, state):
    def value_fn(params):
      return loss(masked(params, state))

    value, grad = jax.value_and_grad(loss)(masked(params, state))
    options = {
      'value': value, 'grad': grad, 'value_fn': value_fn, 'obj_fn': value_fn
    }  # fmt: skip
    updates, state = tx.update(
      grad, state, params, **{name: options[name] for name in extra}
    )
    return optax.apply_updates(params, updates), state

  step = jax.jit(step) if jit else step
  params = PARAMS
  if 'lookahead' in getattr(tx.update, '__qualname__', ''):
    params = optax.LookaheadParams.init_synced(params)
  found = [(params, tx.init(params))]
  for _ in range(5):
    found.append(step(*found[-1]))
  if is_sparse:
    sets = [sparsity.active_sets(state) for _, state in found]
    weights = [getattr(params, 'fast', params)['a']['w'] for params, _ in found]
    for before, after in itertools.pairwise(zip(weights, sets, strict=True)):
      _check(*before, *after)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(found[-1][0]))


def _check(before, was, after, now):
  """Asserts that entries outside B stay, and that sets keep their sizes."""
  was_in, is_in = (sets.backward['a']['w'] for sets in (was, now))
  outside = ~(was_in | is_in)
  assert before[outside].tobytes() == after[outside].tobytes()
  assert 0 < was_in.sum() == is_in.sum() < is_in.size
  assert not jnp.any(now.forward['a']['w'] & ~is_in)


def row(name, make_method=make_method):
  """Returns the line of the page about a transformation."""
  found = [outcome(name, side, make_method) for side in makers()[name]]
  return ' | '.join([f'| `{name}`', *found, *['-'] * (2 - len(found))]) + ' |'


if __name__ == '__main__':
  page = INTRODUCTION.format(version=optax.__version__)
  PAGE.write_text(page + '\n'.join(map(row, makers())) + '\n')
