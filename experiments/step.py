"""The training step: pure functions, and their compilation.

S: steps of a chunk; B: examples of a batch.
"""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments import methods
from experiments import storage as storage_lib
import sparsity
from sparsity import select

ON_NOT_FINITE = ('stop', 'skip')

Metrics = dict[str, jax.Array]


class Objective(NamedTuple):
  """How a step computes and applies gradients."""

  # (weights, net_state, key, batch, is_training)
  # -> mean loss [], (further metrics, each [], net_state)
  loss: Callable[..., tuple[jax.Array, tuple[Metrics, Any]]]
  method: methods.Method
  num_micro: int  # micro-batches of a batch
  skip_nonfinite: bool  # steps whose loss or gradient is not finite


class Steps(NamedTuple):
  """Compiled functions of a task, shared by all its seeds."""

  # (state, seed, key, inputs, first, last, is_training) -> state, metric sums
  advance: Callable[..., tuple[storage_lib.TrainState, Metrics]]
  # (state, seed, key, inputs, i, is_training) -> state, metrics, gradients
  measure: Callable[..., tuple[storage_lib.TrainState, Metrics, Any]]
  # (state, mean metrics, masks before the steps) -> one row of metrics
  summarize: Callable[..., Metrics]
  # state -> a copy of its masks, because `advance` donates the state
  masks: Callable[[storage_lib.TrainState], Any]


def compile_steps(
  objective: Objective,
  batch_at: Callable[[Any, Any], Any],
  state: storage_lib.TrainState,
  replicated: jax.sharding.Sharding,
  *,
  in_loop: bool,
) -> Steps:
  """Returns the compiled functions of a task; see `tasks.base.make_task`.

  With `in_loop` one dispatch makes all steps of a chunk. XLA parallelizes steps
  better outside of a loop, and on a CPU the gradients of convolutions take many
  times as long inside (https://github.com/jax-ml/jax/issues/12868).
  """
  shardings = jax.tree.map(lambda x: x.sharding, storage_lib.on_device(state))

  def step(state, seed, key, inputs, i, is_training):
    step_key = jax.random.fold_in(key, state.step)
    batch = batch_at(inputs, i)
    return train_step(objective, state, seed, step_key, batch, is_training)

  def loop(state, seed, key, inputs, first, last, is_training):
    @functools.partial(jax.jit, inline=True)  # traced once for both uses
    def traced(state, i):
      return step(state, seed, key, inputs, i, is_training)

    def body(i, carry):
      state, metrics = traced(carry[0], i)
      return state, jax.tree.map(jnp.add, carry[1], metrics)

    first, last = (jnp.asarray(x, jnp.int32) for x in (first, last))
    shapes = jax.eval_shape(traced, state, first)[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    # The number of steps is not part of the program, so that one serves all.
    return jax.lax.fori_loop(first, last, body, (state, zeros))

  def one_by_one(state, seed, key, inputs, first, last, is_training):
    parts = []
    for i in range(first, last):
      state, metrics = compiled(state, seed, key, inputs, i, is_training)
      parts.append(metrics)
    return state, storage_lib.add_all(parts)

  def measure(state, seed, key, inputs, i, is_training):
    del seed
    step_key = jax.random.fold_in(key, state.step)
    batch = batch_at(inputs, i)
    return measure_step(objective, state, step_key, batch, is_training)

  def masks(state):
    return objective.method.masks(state.params, state.opt_state)

  jit = functools.partial(
    jax.jit, donate_argnums=0, static_argnames='is_training'
  )
  compiled = jit(
    loop if in_loop else step, out_shardings=(shardings, replicated)
  )
  return Steps(
    compiled if in_loop else one_by_one,
    jit(measure, out_shardings=(shardings, replicated, replicated)),
    jax.jit(functools.partial(summarize, objective), out_shardings=replicated),
    jax.jit(masks),
  )


def train_step(
  objective: Objective,
  state: storage_lib.TrainState,
  seed: Any,
  key: jax.Array,
  batch: Any,
  is_training: bool = True,
) -> tuple[storage_lib.TrainState, Metrics]:
  """Returns the next state, and the loss and other metrics of the batch.

  A skipped step changes only the number of the step; its metrics are 0, and
  `skipped` is 1.
  """
  tx, storage = objective.method.make(seed)
  weights = objective.method.to_weights(state.params)
  weights = storage.forward_weights(weights, state.opt_state)
  new_state, metrics, gradients = _measure(
    objective, weights, state, key, batch, is_training
  )
  updates, opt_state = tx.update(gradients, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  if objective.skip_nonfinite:
    params, opt_state = _where(
      metrics['skipped'] == 0,
      (params, opt_state),
      (state.params, state.opt_state),
    )
  return new_state._replace(params=params, opt_state=opt_state), metrics


def measure_step(
  objective: Objective,
  state: storage_lib.TrainState,
  key: jax.Array,
  batch: Any,
  is_training: bool = True,
) -> tuple[storage_lib.TrainState, Metrics, Any]:
  """Returns the next state with the same parameters, metrics, dense gradients.

  A refresh of compact weights by gradients takes the place of the step.
  """
  weights = sparsity.compact.unpack(
    methods.forward_weights(objective.method, state)
  )
  return _measure(objective, weights, state, key, batch, is_training)


def _measure(objective: Objective, weights, state, key, batch, is_training):
  """Returns `measure_step` at the given weights; gradients are like these."""
  gradients, metrics, net_state = compute_gradients(
    objective, weights, state.net_state, batch, key, is_training
  )
  new_state = state._replace(step=state.step + 1, net_state=net_state)
  if not objective.skip_nonfinite:
    return new_state, metrics, gradients
  # Zeros in place of gradients that are not finite: no entry grows by them.
  is_finite = _is_finite((metrics['loss'], gradients))
  zeros = jax.tree.map(jnp.zeros_like, (metrics, gradients))
  metrics, gradients = _where(is_finite, (metrics, gradients), zeros)
  net_state = _where(is_finite, net_state, state.net_state)
  metrics = {**metrics, 'skipped': jnp.float32(~is_finite)}
  return new_state._replace(net_state=net_state), metrics, gradients


def summarize(
  objective: Objective,
  state: storage_lib.TrainState,
  metrics: Metrics,
  before: Any,
) -> Metrics:
  """Returns the mean metrics of some steps as one row.

  Metrics are means over the steps that were not skipped, NaN if all were;
  `skipped` is the share of skipped steps. The loss is NaN if the parameters are
  not finite after the steps. `mask_change` is the share of the weights active
  in the masks `before` the steps that are no longer active.
  """
  if objective.skip_nonfinite:
    made = 1 - metrics['skipped']
    means = {name: x / made for name, x in metrics.items()}
    metrics = {**means, 'skipped': metrics['skipped']}
  loss = jnp.where(_is_finite(state.params), metrics['loss'], jnp.nan)
  density = objective.method.density(state.params, state.opt_state)
  metrics = {**metrics, 'loss': loss, 'density': density}
  if before is not None:
    weights = select.selected_paths(state.params, select.is_weight)
    now = objective.method.masks(state.params, state.opt_state)
    old, new = (select.pick(masks, weights) for masks in (before, now))
    metrics['mask_change'] = 1 - sparsity.overlap(old, new, weights)
  return metrics


def compute_gradients(
  objective: Objective, weights, net_state, batch, key, is_training=True
):
  """Returns gradients, mean metrics, and the network's state.

  Micro-batches run one after another, so that only one takes memory at a time;
  the network's state passes through all of them. Gradients of compact weights
  are arrays of the active entries.
  """
  gradient = sparsity.value_and_grad(objective.loss, has_aux=True)
  if objective.num_micro == 1:
    (loss, (metrics, net_state)), gradients = gradient(
      weights, net_state, key, batch, is_training
    )
    return gradients, {'loss': loss, **metrics}, net_state

  def body(carry, part):
    total, net_state = carry
    batch, number = part
    own_key = jax.random.fold_in(key, number)
    (loss, (metrics, net_state)), gradients = gradient(
      weights, net_state, own_key, batch, is_training
    )
    total = jax.tree.map(jnp.add, total, gradients)
    return (total, net_state), {'loss': loss, **metrics}

  parts = jax.tree.map(
    functools.partial(split_batch, num=objective.num_micro), batch
  )
  zeros = jax.tree.map(jnp.zeros_like, sparsity.compact.values(weights))
  (total, net_state), metrics = jax.lax.scan(
    body, (zeros, net_state), (parts, jnp.arange(objective.num_micro))
  )
  gradients = jax.tree.map(lambda x: x / objective.num_micro, total)
  return gradients, jax.tree.map(jnp.mean, metrics), net_state


def split_batch(x: jax.Array, num: int) -> jax.Array:
  """Returns [B, ...] as [num, B / num, ...], every num-th example together.

  A batch that is sharded over devices stays sharded without communication.
  """
  return jnp.moveaxis(jnp.reshape(x, (-1, num, *x.shape[1:])), 1, 0)


def _is_finite(tree: Any) -> jax.Array:
  """Returns whether every number of a tree is finite, bool []."""
  finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
  return jnp.all(jnp.stack(finite))


def _where(condition: jax.Array, tree: Any, other: Any) -> Any:
  return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree, other)
