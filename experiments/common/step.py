"""One pure training step, and many of them in one dispatch."""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

Metrics = dict[str, jax.Array]


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


class Recipe(NamedTuple):
  """How a network is trained: pure functions."""

  network: hk.TransformedWithState
  to_weights: Callable[[Any], Any]  # phi -> theta
  from_weights: Callable[[Any], Any]  # theta -> phi
  see: Callable[[Any, optax.OptState], Any]  # theta -> theta on A
  density: Callable[[optax.OptState], jax.Array]  # of the weights seen
  loss: Callable[[jax.Array, jax.Array], jax.Array]  # logits, labels -> []
  optimizer: optax.GradientTransformationExtraArgs


def init_state(recipe: Recipe, key: jax.Array, inputs: jax.Array) -> TrainState:
  """Returns the state before the first step; theta is drawn as usual."""
  weights, net_state = recipe.network.init(key, inputs, True)
  params = recipe.from_weights(weights)
  opt_state = recipe.optimizer.init(params)
  return TrainState(jnp.zeros([], jnp.int32), params, net_state, opt_state)


def train_step(
  recipe: Recipe, state: TrainState, batch: Batch, key: jax.Array
) -> tuple[TrainState, Metrics]:
  """Returns the next state, and the loss and accuracy on the batch."""

  def loss_fn(weights):
    logits, net_state = recipe.network.apply(
      weights, state.net_state, key, batch.inputs, True
    )
    return recipe.loss(logits, batch.labels), (logits, net_state)

  weights = seen_weights(recipe, state)
  (loss, (logits, net_state)), gradients = jax.value_and_grad(
    loss_fn, has_aux=True
  )(weights)
  updates, opt_state = recipe.optimizer.update(
    gradients, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  metrics = {'loss': loss, 'accuracy': accuracy(logits, batch.labels)}
  return TrainState(state.step + 1, params, net_state, opt_state), metrics


def train_steps(
  recipe: Recipe,
  state: TrainState,
  examples: Batch,
  indices: jax.Array,
  key: jax.Array,
) -> tuple[TrainState, Metrics]:
  """Makes many steps in one dispatch, on data that lies on the device.

  Shapes:
    examples: all of them, [N, ...].
    indices: int32 [T, B], which examples each of the T steps sees.
    metrics: [], means over the T steps; the loss is NaN if the parameters are
      no longer finite after them, the density is that after them.
  """

  def body(state, step_indices):
    batch = jax.tree.map(lambda x: x[step_indices], examples)
    step_key = jax.random.fold_in(key, state.step)
    return train_step(recipe, state, batch, step_key)

  state, metrics = jax.lax.scan(body, state, indices)
  metrics = jax.tree.map(jnp.mean, metrics)
  finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state.params)]
  sound = jnp.all(jnp.stack(finite))
  loss = jnp.where(sound, metrics['loss'], jnp.nan)
  density = recipe.density(state.opt_state)
  return state, {**metrics, 'loss': loss, 'density': density}


def seen_weights(recipe: Recipe, state: TrainState) -> Any:
  """Returns what the network sees: theta on the forward set."""
  return recipe.see(recipe.to_weights(state.params), state.opt_state)


def evaluate(
  recipe: Recipe, weights: Any, net_state: Any, examples: Batch
) -> Metrics:
  """Returns the loss and accuracy of `weights` on `examples`, at once."""
  logits, _ = recipe.network.apply(
    weights, net_state, None, examples.inputs, False
  )
  return {
    'loss': recipe.loss(logits, examples.labels),
    'accuracy': accuracy(logits, examples.labels),
  }


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the share of examples whose largest logit is the label's."""
  return jnp.mean(jnp.argmax(logits, -1) == labels)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the mean negative log-likelihood of the labels, in nats."""
  return jnp.mean(
    optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  )
