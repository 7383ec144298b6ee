"""Every transformation of Optax inside and around a sparse method.

python -m tests.sparsity.optimizers

writes docs/optimizers.md. The list is that of optax and optax.contrib, so that
a new transformation is tried by itself.
"""

import functools
import inspect
import pathlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

import sparsity
from tests import oracles
import topkast

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'optimizers.md'
SHAPES = {'a': {'w': (8, 6), 'b': (6,)}, 'c': {'w': (6, 6)}}
PARAMS = oracles.normal(SHAPES, 0)
TARGET = oracles.normal(SHAPES, 1)
WORKS = 'works'


def measure(updates, *_):
  return optax.global_norm(updates)


def is_due(step, *_, **__):
  return step % 2 == 0


# Required arguments, by name. Those in TRANSFORMED take the transformation.
ARGUMENTS = {
  'adv_optimizer': optax.chain(contrib.normalize(), optax.sgd(0.05)),
  'clipping': 0.1,
  'decay': 0.9,
  'eta': 0.01,
  'f': lambda updates, params=None: updates,
  'freeze_mask': {'a': {'w': False, 'b': True}, 'c': {'w': False}},
  'gamma': 0.5,
  'l2_norm_clip': 1.0,
  'learning_rate': 0.05,
  'mask': {'a': {'w': True, 'b': True}, 'c': {'w': False}},
  'max_backtracking_steps': 4,
  'max_consecutive_errors': 3,
  'max_delta': 0.1,
  'max_linesearch_steps': 4,
  'max_norm': 1.0,
  'measure': measure,
  'measure_name': 'norm',
  'measures': {'norm': measure},
  'noise_multiplier': 0.1,
  'param_labels': {'a': {'w': 'on', 'b': 'on'}, 'c': {'w': 'off'}},
  'seed': 0,
  'should_transform_fn': is_due,
  'slow_step_size': 0.5,
  'step_size': -0.1,
  'step_size_fn': lambda count: -0.1,
  'sync_period': 2,
  'threshold': 1.0,
}
DECAY = optax.add_decayed_weights(0.01)
TRANSFORMED = {
  'args': lambda tx: tx,
  'base_optimizer': lambda tx: tx,
  'fast_optimizer': lambda tx: tx,
  'inner': lambda tx: tx,
  'inner_factory': lambda tx: lambda: tx,
  'optimizer': lambda tx: tx,
  'transforms': lambda tx: {'on': tx, 'off': optax.sgd(0.1)},
  'tx': lambda tx: tx,
}


def makers():
  """Returns functions of a transformation that make one, by qualified name.

  The second value is True if the transformation is used.
  """
  found = {}
  for module in (optax, contrib):
    for name, make in inspect.getmembers(module, callable):
      if name.startswith('_') or name[0].isupper():
        continue
      signature = inspect.signature(make)
      result = signature.return_annotation
      is_known = 'GradientTransformation' in str(result)
      required = [
        p.name for p in signature.parameters.values() if p.default is p.empty
      ]
      known = ARGUMENTS.keys() | TRANSFORMED.keys()
      if is_known or (result is signature.empty and known.issuperset(required)):
        path = f'{module.__name__}.{name}'
        found[path] = (
          functools.partial(_make, name, make, required),
          not TRANSFORMED.keys().isdisjoint(required),
        )
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


def attempt(tx):
  """Returns `WORKS`, or the error of some steps with `tx`."""
  try:
    _train(tx)
  except AssertionError:
    raise
  except Exception as error:
    return ' '.join(str(error).split())[:160]
  return WORKS


def _train(tx):
  def loss(weights):
    distances = jax.tree.map(lambda x, y: jnp.sum((x - y) ** 2), weights, TARGET)
    return 0.5 * sum(jax.tree.leaves(distances))

  def fast(params):
    return params.fast if isinstance(params, optax.LookaheadParams) else params

  def step(params, state):
    def value_fn(params):
      return loss(sparsity.forward_weights(fast(params), state))

    weights = sparsity.forward_weights(fast(params), state)
    value, grad = jax.value_and_grad(loss)(weights)
    updates, state = optax.with_extra_args_support(tx).update(
      grad, state, params, value=value, grad=grad, value_fn=value_fn
    )
    return optax.apply_updates(params, updates), state

  params = PARAMS
  state = tx.init(params)
  step = jax.jit(step)
  for _ in range(5):
    old, was_in = params, sparsity.active_sets(state).backward
    params, state = step(params, state)
    sets = sparsity.active_sets(state)
    for layer, k in (('a', 24), ('c', 18)):
      if was_in[layer]['w'].ndim:
        assert sets.forward[layer]['w'].sum() == k // 2
        assert sets.backward[layer]['w'].sum() == k
        before, after = (
          np.asarray(fast(tree)[layer]['w'])[~was_in[layer]['w']]
          for tree in (old, params)
        )
        assert before.tobytes() == after.tobytes()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


def make_topkast(inner):
  return topkast.topkast(
    inner, forward_density=0.25, backward_density=0.5, refresh_every=2
  )

if __name__ == '__main__':
  import time
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    for name, (make, wraps) in makers().items():
      for side in ('inside', 'around'):
        if side == 'around' and not wraps: continue
        t = time.process_time()
        try:
          if side == 'inside':
            r = attempt(make_topkast(make(optax.sgd(0.05))))
          else:
            r = attempt(make(make_topkast(optax.sgd(0.05))))
        except Exception as e:
          r = 'RAISED ' + repr(e)[:300]
        print(name, side, r, round(time.process_time() - t, 2), flush=True)
