"""Compact training equals masked training; checkpoints, devices and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import sparsity
from sparsity.compact import entries as entries_lib
from tests.sparsity import trainers
import topkast


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
  t = trainers.trainer(name)
  params, state = t.train_masked(t.init_masked(), 0, 25)
  carry = t.training.init(trainers.make_params())
  assert_equal(
    sparsity.active_sets(carry[1], carry[0]), t.init_masked()[1].sets
  )
  found, found_state = t.training.unpack(*t.train(carry, 0, 25))
  if name == 'static':  # no host parameters, so zero outside B
    params = jax.tree.map(
      lambda m, x: jnp.where(m, x, 0), state.sets.backward, params
    )
  assert jax.tree.structure(found_state) == jax.tree.structure(state)
  assert_equal(found_state.sets, state.sets)
  assert_close((found, found_state), (params, state))
  assert t.step._cache_size() == 1


def test_entries_outside_the_backward_set_stay_bit_for_bit():
  t = trainers.trainer('topkast')
  found, state = t.training.unpack(*t.train(trainers.init(), 0, 6))
  for path, backward in state.sets.backward.items():
    outside = ~backward['w']
    assert outside.any()
    np.testing.assert_array_equal(
      found[path]['w'][outside], trainers.make_params()[path]['w'][outside]
    )


@pytest.mark.parametrize('name', ['topkast', 'rigl'])
def test_training_may_switch_from_masked_to_compact_and_back(name):
  t = trainers.trainer(name)
  expected = t.train_masked(t.init_masked(), 0, 30)
  carry = t.train_masked(t.init_masked(), 0, 10)
  assert_equal(t.training.unpack(*t.training.pack(*carry)), carry)
  carry = t.training.unpack(*t.train(t.training.pack(*carry), 10, 20))
  assert_close(t.train_masked(carry, 20, 30), expected)


@pytest.mark.parametrize(
  'name', ['topkast', pytest.param('rigl', marks=pytest.mark.nightly)]
)
def test_a_refresh_under_jit_equals_one_on_the_host(name):
  t = trainers.trainer(name)
  carry = t.train(t.training.init(trainers.make_params()), 0, 5)
  gradients = None
  if t.training.needs_gradients:
    gradients = t.dense_gradients(*carry[:2], trainers.make_batches()[0])
  on_host = t.training.refresh(*carry, gradients)
  before, after = (
    entries_lib.places(entries.structure, entries.shape)
    for entries in (x[1].entries['conv2_d/w'] for x in (carry, on_host))
  )
  assert not np.array_equal(before, after)
  assert_close(jax.jit(t.training.refresh)(*carry, gradients), on_host)


def test_a_restored_checkpoint_continues_bit_for_bit(tmp_path):
  t = trainers.trainer('topkast')
  expected, half = (
    t.train(trainers.init(), 0, 15),
    t.train(trainers.init(), 0, 8),
  )
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / 'half', half)
    checkpointer.wait_until_finished()
    restored = checkpointer.restore(tmp_path / 'half', half)
  assert_equal(restored, half)
  assert_equal(t.train(restored, 8, 15), expected)


def test_bfloat16_parameters_keep_their_dtype():
  t = trainers.trainer('topkast')
  params = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16), trainers.make_params()
  )
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
  t = trainers.trainer('topkast')
  expected = t.train(trainers.init(), 0, 8)
  mesh = jax.make_mesh(
    (3,), ('data',), axis_types=(jax.sharding.AxisType.Auto,),
    devices=jax.devices()[:3],
  )  # fmt: skip
  everywhere = jax.NamedSharding(mesh, jax.P())
  split = jax.NamedSharding(mesh, jax.P('data'))
  params, state, host_params = trainers.init()
  found = t.train(
    (*jax.device_put((params, state), everywhere), host_params),
    *(0, 8),
    lambda batch: jax.device_put(batch, split),
  )
  assert found[0]['linear']['w'].sharding.is_equivalent_to(everywhere, 2)
  assert_close(found, expected)


def test_init_has_static_shapes():
  t = trainers.trainer('topkast')
  shapes = jax.eval_shape(t.training.init, trainers.make_params())
  assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(
    jnp.shape, trainers.init()
  )


def test_constant_sets_need_no_host_parameters():
  training = trainers.trainer('static').training
  carry = training.init(trainers.make_params())
  assert carry[2] == {}
  assert not training.is_due(1)
  assert_equal(training.refresh(*carry), carry)


def test_sets_of_snip_and_of_patterns_may_be_compact():
  params = trainers.make_params()
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
    (lambda sgd: sgd, 'expected a sparse method'),
    (lambda sgd: optax.chain(trainers.make_tx('set')), 'outermost'),
    (
      lambda sgd: sparsity.magnitude(sgd, density=0.1, at=5),
      'never changes.*masked storage',
    ),
    (
      lambda sgd: topkast.topkast(sgd, **trainers.DENSITIES, scope='global'),
      "expected scope='layer', got 'global'",
    ),
    (
      lambda sgd: topkast.topkast(sgd, **trainers.DENSITIES),
      'conv1_d/w: expected a matrix',
    ),
  ],
)
def test_methods_and_layers_that_cannot_be_compact_are_errors(make, message):
  params = {'conv1_d': {'w': jnp.ones((3, 4, 5))}}
  with pytest.raises(ValueError, match=message):
    sparsity.compact.compact(make(optax.sgd(0.1))).init(params)


def test_missing_and_superfluous_arguments_are_errors():
  training = trainers.trainer('topkast').training
  params, state, host_params = trainers.init()
  with pytest.raises(ValueError, match='expected parameters, got None'):
    training.update(params, state)
  with pytest.raises(ValueError, match='expected the parameters'):
    sparsity.active_sets(state)
  with pytest.raises(ValueError, match='got gradients'):
    training.refresh(params, state, host_params, trainers.make_params())
  training = trainers.trainer('rigl').training
  assert training.needs_gradients
  with pytest.raises(ValueError, match='got None'):
    training.refresh(*training.init(trainers.make_params()))
