"""Compact training equals masked training; checkpoints, devices and errors."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import powerprop
import sparsity
from sparsity.compact import entries as entries_lib
import topkast

NUM_INPUTS, HIDDEN, NUM_CLASSES = 13, 24, 5
DENSITIES = {'forward_density': 0.2, 'backward_density': 0.4}


def forward(x):
  x = jax.nn.relu(sparsity.modules.Linear(HIDDEN)(x))
  return sparsity.modules.Linear(NUM_CLASSES, name='last')(x)


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
  if name == 'random':
    return topkast.topkast(
      optax.sgd(1e-1, momentum=0.9),
      **DENSITIES,
      refresh_every=3,
      exploration='random',
    )
  if name == 'static':
    return sparsity.static(optax.adam(1e-2), density=0.3)
  if name == 'set':
    return sparsity.set_(optax.adam(1e-2), density=0.3, refresh_every=6)
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
    self.dense_gradients = jax.jit(self._dense_gradients)

  def _step(self, update, params, state, batch):
    weights = sparsity.forward_weights(self.to_weights(params), state)
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


def assert_close(actual, expected):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
    actual,
    expected,
  )


def assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
  'name',
  [
    *('topkast', 'powerprop', 'static', 'rigl'),
    *(pytest.param(n, marks=pytest.mark.nightly) for n in ('random', 'set')),
  ],
)
def test_compact_training_equals_masked_training_over_refreshes(name):
  t = trainer(name)
  params, state = t.train_masked(t.init_masked(), 0, 25)
  carry = t.train(t.training.init(make_params()), 0, 25)
  found, found_state = t.training.unpack(*carry)
  if name == 'static':  # no host parameters, so zero outside B
    params = jax.tree.map(
      lambda m, x: jnp.where(m, x, 0), state.sets.backward, params
    )
  assert jax.tree.structure(found_state) == jax.tree.structure(state)
  assert_equal(found_state.sets, state.sets)
  assert_close((found, found_state), (params, state))
  assert t.step._cache_size() == 1


def test_entries_outside_the_backward_set_stay_bit_for_bit():
  t = trainer('topkast')
  found, state = t.training.unpack(*t.train(init(), 0, 6))
  for path, backward in state.sets.backward.items():
    outside = ~backward['w']
    assert outside.any()
    np.testing.assert_array_equal(
      found[path]['w'][outside], make_params()[path]['w'][outside]
    )


@pytest.mark.parametrize('name', ['topkast', 'rigl'])
def test_training_may_switch_from_masked_to_compact_and_back(name):
  t = trainer(name)
  expected = t.train_masked(t.init_masked(), 0, 30)
  carry = t.train_masked(t.init_masked(), 0, 10)
  assert_equal(t.training.unpack(*t.training.pack(*carry)), carry)
  carry = t.training.unpack(*t.train(t.training.pack(*carry), 10, 20))
  assert_close(t.train_masked(carry, 20, 30), expected)


@pytest.mark.parametrize(
  'name', ['topkast', pytest.param('rigl', marks=pytest.mark.nightly)]
)
def test_a_refresh_under_jit_equals_one_on_the_host(name):
  t = trainer(name)
  carry = t.train(t.training.init(make_params()), 0, 5)
  gradients = None
  if t.training.needs_gradients:
    gradients = t.dense_gradients(*carry[:2], make_batches()[0])
  on_host = t.training.refresh(*carry, gradients)
  before, after = (
    entries_lib.places(entries.structure, entries.shape)
    for entries in (x[1].entries['linear/w'] for x in (carry, on_host))
  )
  assert not np.array_equal(before, after)
  assert_close(jax.jit(t.training.refresh)(*carry, gradients), on_host)


def test_a_restored_checkpoint_continues_bit_for_bit(tmp_path):
  t = trainer('topkast')
  expected, half = t.train(init(), 0, 15), t.train(init(), 0, 8)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / 'half', half)
    checkpointer.wait_until_finished()
    restored = checkpointer.restore(tmp_path / 'half', half)
  assert_equal(restored, half)
  assert_equal(t.train(restored, 8, 15), expected)


def test_bfloat16_parameters_keep_their_dtype():
  t = trainer('topkast')
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), make_params())
  carry = t.training.init(params)
  dtypes = [x.dtype for x in jax.tree.leaves(carry)]
  assert carry[0]['linear']['w'].dtype == jnp.bfloat16
  assert carry[2]['linear/w'].dtype == jnp.bfloat16
  # All entries change, so that the refresh has something to write back.
  carry = (jax.tree.map(lambda x: x + 1, carry[0]), *carry[1:])
  expected, _ = t.training.unpack(*carry)
  carry = t.training.refresh(*carry)
  assert [x.dtype for x in jax.tree.leaves(carry)] == dtypes
  assert_equal(t.training.unpack(*carry)[0], expected)


def test_several_devices_equal_one():
  t = trainer('topkast')
  expected = t.train(init(), 0, 8)
  mesh = jax.make_mesh(
    (3,), ('data',), axis_types=(jax.sharding.AxisType.Auto,),
    devices=jax.devices()[:3],
  )  # fmt: skip
  everywhere = jax.NamedSharding(mesh, jax.P())
  split = jax.NamedSharding(mesh, jax.P('data'))
  params, state, host_params = init()
  found = t.train(
    (*jax.device_put((params, state), everywhere), host_params),
    *(0, 8),
    lambda batch: jax.device_put(batch, split),
  )
  assert found[0]['linear']['w'].sharding.is_equivalent_to(everywhere, 2)
  assert_close(found, expected)


def test_shapes_are_known_without_computation():
  training = trainer('topkast').training
  shapes = jax.eval_shape(training.init, make_params())
  assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(
    jnp.shape, init()
  )


def test_initial_sets_equal_those_of_masked_training():
  params, state, _ = init()
  assert_equal(
    sparsity.active_sets(state, params),
    trainer('topkast').init_masked()[1].sets,
  )


def test_constant_sets_need_no_host_parameters():
  training = trainer('static').training
  carry = training.init(make_params())
  assert carry[2] == {}
  assert not training.is_due(1)
  assert_equal(training.refresh(*carry), carry)


def test_sets_of_snip_and_of_patterns_may_be_compact():
  params = make_params()
  tx = sparsity.snip(optax.sgd(0.1), scores=params, density=0.3)
  rows, _, _ = sparsity.compact.compact(tx).init(params)
  weights = [params[path]['w'].size for path in params]
  found = [rows[path]['w'].size for path in params]
  assert sum(found) == round(0.3 * sum(weights))
  tx = sparsity.set_(
    optax.sgd(0.1),
    density=0.25,
    refresh_every=1,
    pattern=sparsity.patterns.block(2, 2),
  )
  training = sparsity.compact.compact(tx)
  params, state, host_params = training.init({'w': jnp.ones((16, 16))})
  assert params['w'].size == 64
  _, state, _ = training.refresh(params, state, host_params)
  assert state.entries['w'].num_forward == 64


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: optax.sgd(0.1), 'expected a sparse method'),
    (lambda: optax.chain(make_tx('set')), 'outermost'),
    (
      lambda: sparsity.magnitude(optax.sgd(0.1), density=0.1, at=5),
      'never changes',
    ),
    (
      lambda: sparsity.gradual(
        optax.sgd(0.1), density=0.1, start=0, end=9, prune_every=3
      ),
      'masked storage',
    ),
  ],
)
def test_methods_that_cannot_be_compact_are_errors(make, message):
  with pytest.raises(ValueError, match=message):
    sparsity.compact.compact(make())


def test_layers_that_cannot_be_compact_are_errors():
  tx = topkast.topkast(optax.sgd(0.1), **DENSITIES, scope='global')
  with pytest.raises(ValueError, match="expected scope='layer', got 'global'"):
    sparsity.compact.compact(tx).init(make_params())
  params = {'conv1_d': {'w': jnp.ones((3, 4, 5))}}
  with pytest.raises(ValueError, match='conv1_d/w: expected a matrix'):
    trainer('topkast').training.init(params)


def test_missing_and_superfluous_arguments_are_errors():
  training = trainer('topkast').training
  params, state, host_params = init()
  with pytest.raises(ValueError, match='expected parameters, got None'):
    training.update(params, state)
  with pytest.raises(ValueError, match='expected the parameters'):
    sparsity.active_sets(state)
  with pytest.raises(ValueError, match='got gradients'):
    training.refresh(params, state, host_params, make_params())
  training = trainer('rigl').training
  assert training.needs_gradients
  with pytest.raises(ValueError, match='got None'):
    training.refresh(*training.init(make_params()))


def test_inference_equals_that_of_the_masked_weights():
  net = hk.without_apply_rng(
    hk.transform(
      lambda x: sparsity.modules.Linear(8)(
        jax.nn.relu(sparsity.modules.Conv2D(6, 3)(x)).mean((1, 2))
      )
    )
  )
  x = jax.random.normal(jax.random.key(2), (3, 5, 5, 4))
  params = net.init(jax.random.key(0), x)
  masks = jax.tree.map(lambda x: np.ones(x.shape, bool), params)
  masks['conv2_d']['w'] = np.asarray(
    sparsity.topk_mask(params['conv2_d']['w'], 30, magnitude=True)
  )
  pruned = jax.tree.map(jnp.multiply, params, masks)
  expected = net.apply(pruned, x)
  is_compact = sparsity.compact.is_compact
  for predict in (
    sparsity.compile_inference(net.apply, params, masks),
    # Without masks, from the zeros of the weights.
    sparsity.compile_inference(net.apply, pruned, implementation='reference'),
  ):
    np.testing.assert_allclose(predict(x), expected, rtol=1e-5, atol=1e-5)
    assert predict.weights['conv2_d']['w'].entries.num_forward == 30
    assert not is_compact(predict.weights['linear']['w'])
  np.testing.assert_allclose(predict(x[:1]), expected[:1], rtol=1e-5, atol=1e-5)
  del masks['linear']
  with pytest.raises(ValueError, match='expected masks like the weights'):
    sparsity.compile_inference(net.apply, params, masks)
