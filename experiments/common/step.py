"""One pure training step, and many of them in one dispatch."""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.common import storage as storage_lib
import sparsity
from sparsity import select

ON_NOT_FINITE = ('stop', 'skip')

Metrics = dict[str, jax.Array]

# (weights, network state, random key or None, batch, is_training)
# -> mean loss [], (further metrics, each [], network state)
Objective = Callable[..., tuple[jax.Array, tuple[Metrics, Any]]]


class Batch(NamedTuple):
  """Some examples."""

  inputs: jax.Array  # [B, ...]
  labels: jax.Array  # int32 [B]


class TrainState(NamedTuple):
  """Everything that a step changes, and so everything a checkpoint holds."""

  step: jax.Array  # int32 [], steps made so far
  params: Any  # phi, the raw parameters
  net_state: Any  # Haiku state, such as batch statistics
  opt_state: optax.OptState  # with the active sets
  # Of compact storage, dense parameters by path: NumPy arrays, on the host.
  stored: dict[str, Any] | None = None


class Recipe(NamedTuple):
  """How a network is trained: pure functions."""

  init: Callable[[jax.Array], tuple[Any, Any]]  # key -> theta, network state
  objective: Objective
  to_weights: Callable[[Any], Any]  # phi -> theta
  from_weights: Callable[[Any], Any]  # theta -> phi
  see: Callable[[Any, optax.OptState], Any]  # theta -> theta on A
  density: Callable[[Any, optax.OptState], jax.Array]  # of the weights seen
  masks: Callable[[Any, optax.OptState], Any]  # of the same; None: dense
  optimizer: optax.GradientTransformationExtraArgs
  num_micro: int = 1  # parts of a batch whose gradients are averaged
  storage: storage_lib.Storage = storage_lib.MASKED
  skips: bool = False  # steps whose loss or gradient is not finite


def init_state(recipe: Recipe, key: jax.Array) -> TrainState:
  """Returns the state before the first step, masked; theta is as drawn."""
  weights, net_state = recipe.init(key)
  params = recipe.from_weights(weights)
  opt_state = recipe.optimizer.init(params)
  return TrainState(jnp.zeros([], jnp.int32), params, net_state, opt_state)


def is_skipping(on_not_finite: str) -> bool:
  """Returns whether steps are skipped whose loss or gradient is not finite.

  Raises:
    ValueError: If `on_not_finite` is not among `ON_NOT_FINITE`.
  """
  if on_not_finite not in ON_NOT_FINITE:
    raise ValueError(
      f'config.train.on_not_finite: expected one of {ON_NOT_FINITE}, got '
      f'{on_not_finite!r}'
    )
  return on_not_finite == 'skip'


def train_step(
  recipe: Recipe, state: TrainState, batch: Any, key: jax.Array
) -> tuple[TrainState, Metrics]:
  """Returns the next state, and the loss and other metrics on the batch.

  A step that is skipped leaves everything as it was but the number of the step;
  its metrics are 0, and `skipped` is 1.
  """
  see = recipe.storage.see or recipe.see
  weights = see(recipe.to_weights(state.params), state.opt_state)
  gradients, metrics, net_state = compute_gradients(
    recipe, weights, state.net_state, batch, key
  )
  updates, opt_state = recipe.optimizer.update(
    gradients, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  following = state._replace(
    step=state.step + 1,
    params=params,
    net_state=net_state,
    opt_state=opt_state,
  )
  if not recipe.skips:
    return following, metrics
  is_finite = _is_finite((metrics['loss'], gradients))
  following = jax.tree.map(
    lambda new, old: jnp.where(is_finite, new, old),
    following,
    state._replace(step=state.step + 1),
  )
  metrics = {name: jnp.where(is_finite, x, 0) for name, x in metrics.items()}
  return following, {**metrics, 'skipped': jnp.float32(~is_finite)}


def train_steps(
  recipe: Recipe,
  state: TrainState,
  batch_at: Callable[[jax.Array], Any],
  key: jax.Array,
  first: jax.Array,
  last: jax.Array,
) -> tuple[TrainState, Metrics]:
  """Makes some steps of a chunk in one dispatch.

  How many they are is no part of the program: one is compiled for all.

  Args:
    recipe: how the network is trained.
    state: before the steps.
    batch_at: from the number of a step in the chunk to its batch.
    key: of the chunk's network; each step has its own by its number.
    first: the first step, int [].
    last: the first that is not made, over `first`.

  Returns:
    The state after the steps, and sums of their metrics.
  """

  # Inlined, and traced once though it is asked for twice.
  @functools.partial(jax.jit, inline=True)
  def step(state, i):
    step_key = jax.random.fold_in(key, state.step)
    return train_step(recipe, state, batch_at(i), step_key)

  def body(i, carry):
    state, sums = carry
    state, metrics = step(state, i)
    return state, jax.tree.map(jnp.add, sums, metrics)

  first = jnp.asarray(first, jnp.int32)
  shapes = jax.eval_shape(step, state, first)[1]
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  return jax.lax.fori_loop(
    first, jnp.asarray(last, jnp.int32), body, (state, zeros)
  )


def measure_step(
  recipe: Recipe, state: TrainState, batch: Any, key: jax.Array
) -> tuple[TrainState, Metrics, Any]:
  """Returns what a refresh by gradients needs, of compact weights.

  These are the state after a step that leaves the parameters as they are, the
  metrics, and the gradients with respect to all weights, dense.
  """
  weights = sparsity.compact.unpack(seen_weights(recipe, state))
  gradients, metrics, net_state = compute_gradients(
    recipe, weights, state.net_state, batch, key
  )
  following = state._replace(step=state.step + 1, net_state=net_state)
  if not recipe.skips:
    return following, metrics, gradients
  # Nothing grows by gradients that are not finite: they count as zeros.
  is_finite = _is_finite((metrics['loss'], gradients))
  keep = lambda tree, other: jax.tree.map(  # noqa: E731
    lambda x, y: jnp.where(is_finite, x, y), tree, other
  )
  zeros = jax.tree.map(jnp.zeros_like, (metrics, gradients))
  metrics, gradients = keep((metrics, gradients), zeros)
  following = following._replace(net_state=keep(net_state, state.net_state))
  skipped = jnp.float32(~is_finite)
  return following, {**metrics, 'skipped': skipped}, gradients


def summarize(
  recipe: Recipe, state: TrainState, metrics: Metrics, before: Any = None
) -> Metrics:
  """Returns the metrics of steps, each [T] or a mean, as one row of figures.

  They are means over the steps that were not skipped, NaN if all were, and
  `skipped` is the share of those; the loss is NaN if the parameters are no
  longer finite after the steps, and the density is that after them.
  With the masks `before` the steps, `mask_change` is the share of the weights
  seen then that are no longer seen.
  """
  metrics = jax.tree.map(jnp.mean, metrics)
  if recipe.skips:
    made = 1 - metrics['skipped']
    made = {name: x / made for name, x in metrics.items()}
    metrics = {**made, 'skipped': metrics['skipped']}
  finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state.params)]
  sound = jnp.all(jnp.stack(finite))
  loss = jnp.where(sound, metrics['loss'], jnp.nan)
  density = recipe.density(state.params, state.opt_state)
  metrics = {**metrics, 'loss': loss, 'density': density}
  if before is not None:
    weights = [
      select.selected_paths(masks, select.is_weight)
      for masks in (before, recipe.masks(state.params, state.opt_state))
    ]
    metrics['mask_change'] = 1 - sparsity.overlap(*weights)
  return metrics


def seen_weights(recipe: Recipe, state: TrainState) -> Any:
  """Returns what the network sees: theta on the forward set.

  Of a compact state the sparse layers are `sparsity.CompactWeights`.
  """
  return recipe.see(recipe.to_weights(state.params), state.opt_state)


def _is_finite(tree: Any) -> jax.Array:
  """Returns whether every number of a tree is finite, bool []."""
  finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
  return jnp.all(jnp.stack(finite))


def compute_gradients(recipe: Recipe, weights, net_state, batch, key):
  """Returns gradients and metrics, means over the batch, and the net state.

  With several micro-batches the network's state goes through one after another,
  and only one of them takes memory at a time. Of compact weights the gradients
  are arrays of their active entries.
  """
  gradient = sparsity.value_and_grad(recipe.objective, has_aux=True)
  if recipe.num_micro == 1:
    (loss, (metrics, net_state)), gradients = gradient(
      weights, net_state, key, batch, True
    )
    return gradients, {'loss': loss, **metrics}, net_state

  def body(carry, part):
    total, net_state = carry
    batch, number = part
    (loss, (metrics, net_state)), gradients = gradient(
      weights, net_state, jax.random.fold_in(key, number), batch, True
    )
    total = jax.tree.map(jnp.add, total, gradients)
    return (total, net_state), {'loss': loss, **metrics}

  parts = jax.tree.map(
    functools.partial(split_batch, num=recipe.num_micro), batch
  )
  zeros = jax.tree.map(jnp.zeros_like, sparsity.compact.values(weights))
  (total, net_state), metrics = jax.lax.scan(
    body, (zeros, net_state), (parts, jnp.arange(recipe.num_micro))
  )
  gradients = jax.tree.map(lambda x: x / recipe.num_micro, total)
  return gradients, jax.tree.map(jnp.mean, metrics), net_state


def split_batch(x: jax.Array, num: int) -> jax.Array:
  """Returns [B, ...] as [num, B / num, ...], every num-th example together.

  So a batch that is sharded over devices stays so without moving.
  """
  return jnp.moveaxis(jnp.reshape(x, (-1, num, *x.shape[1:])), 1, 0)
