"""A small network trained masked and compact, with each method."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import optax

import powerprop
import sparsity
import topkast

NUM_INPUTS, HIDDEN, NUM_CLASSES = 16, 24, 5
DENSITIES = {'forward_density': 0.2, 'backward_density': 0.4}


def forward(x):
  x = x.reshape(-1, 2, 2, NUM_INPUTS // 4)
  x = sparsity.modules.Conv2D(HIDDEN, 2, padding='VALID')(x)
  x = jax.nn.relu(x.reshape(-1, HIDDEN))
  return sparsity.modules.Linear(NUM_CLASSES)(x)


NET = hk.without_apply_rng(hk.transform(forward))


def loss(weights, batch):
  inputs, labels = batch
  logits = NET.apply(weights, inputs)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return jnp.mean(losses)


@functools.cache
def make_params():
  return NET.init(jax.random.key(0), jnp.zeros((1, NUM_INPUTS)))


@functools.cache
def make_batches(num=30):
  teacher = jax.random.normal(jax.random.key(7), (NUM_INPUTS, NUM_CLASSES))
  x = jax.random.normal(jax.random.key(1), (num, 9, NUM_INPUTS))
  return list(zip(x, jnp.argmax(x @ teacher, -1), strict=True))


def is_matrix(params):
  return jax.tree.map(lambda x: x.ndim > 1, params)


def make_tx(name):
  penalty = topkast.exploration_penalty(1e-2)
  if name == 'topkast':
    inner = optax.chain(penalty, optax.adamw(1e-2, mask=is_matrix))
    return topkast.topkast(
      inner, **DENSITIES, refresh_every=7, distribution='erdos_renyi'
    )
  if name == 'powerprop':
    inner = powerprop.powerprop(optax.chain(penalty, optax.adam(1e-2)), 2.0)
    return topkast.topkast(inner, **DENSITIES, refresh_every=7)
  if name == 'static':
    inner = powerprop.ham(optax.adam(1e-2), 1e-2, a=20.0)
    return sparsity.static(inner, density=0.3)
  return sparsity.rigl(
    optax.sgd(1e-1, momentum=0.9, nesterov=True),
    density=0.3,
    refresh_every=6,
    stop_refresh_at=90,
    grow_at=0.01,
  )


class Trainer:
  """Masked and compact training with one method; compiled once."""

  def __init__(self, name):
    self.tx = make_tx(name)
    self.training = sparsity.compact.compact(self.tx)
    self.to_weights = lambda params: params
    if name == 'powerprop':
      self.to_weights = functools.partial(powerprop.to_weights, alpha=2.0)
    self.masked_step = jax.jit(functools.partial(self._step, self.tx.update))
    self.step = jax.jit(functools.partial(self._step, self.training.update))
    skip = functools.partial(sparsity.masked_weights, self.tx, skip=True)
    self.skipping_step = jax.jit(
      functools.partial(self._step, self.tx.update, apply_mask=skip)
    )
    self.dense_gradients = jax.jit(self._dense_gradients)

  def _step(
    self, update, params, state, batch, apply_mask=sparsity.forward_weights
  ):
    weights = apply_mask(self.to_weights(params), state)
    gradients = sparsity.grad(loss)(weights, batch)
    updates, state = update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  def _dense_gradients(self, params, state, batch):
    weights = sparsity.forward_weights(self.to_weights(params), state)
    return jax.grad(loss)(sparsity.compact.unpack(weights), batch)

  def init_masked(self):
    return make_params(), self.tx.init(make_params())

  def train_masked(self, carry, first, last):
    for batch in make_batches()[first:last]:
      carry = self.masked_step(*carry, batch)
    return carry

  def train(self, carry, first, last, place=lambda x: x):
    """Makes the steps first + 1, ..., last as a training loop does."""
    params, state, host_params = carry
    for i in range(first, last):
      batch = place(make_batches()[i])
      due, gradients = self.training.is_due(i + 1), None
      if due and self.training.needs_gradients:
        gradients = self.dense_gradients(params, state, batch)
      else:
        params, state = self.step(params, state, batch)
      if due:
        params, state, host_params = self.training.refresh(
          params, state, host_params, gradients
        )
    return params, state, host_params


@functools.cache
def trainer(name):
  return Trainer(name)


def init():
  return trainer('topkast').training.init(make_params())
