"""Compact training as a program has it: mistakes, checkpoints, devices."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import sparsity
import topkast

NET = hk.without_apply_rng(
  hk.transform(lambda x: sparsity.modules.Linear(16)(x))
)
DENSITIES = {'forward_density': 0.2, 'backward_density': 0.4}


def make_params():
  return NET.init(jax.random.key(0), jnp.zeros((1, 16)))


def make_training(**options):
  options = {**DENSITIES, 'refresh_every': 3, **options}
  return sparsity.compact.compact(topkast.topkast(optax.adam(1e-2), **options))


def make_step(training):
  def loss(weights, x):
    return jnp.mean(jnp.square(NET.apply(weights, x) - jnp.roll(x, 1, -1)))

  @jax.jit
  def step(params, state, x):
    weights = sparsity.forward_weights(params, state)
    gradients = sparsity.grad(loss)(weights, x)
    updates, state = training.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  return step


def run(training, carry, first, last, shard=lambda x: x):
  step = make_step(training)
  params, state, stored = carry
  for i in range(first, last + 1):
    x = jax.random.normal(jax.random.key(i), (8, 16))
    params, state = step(params, state, shard(x))
    if training.is_due(i):
      params, state, stored = training.refresh(params, state, stored)
  return params, state, stored


def assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_restored_checkpoint_goes_on_bit_for_bit(tmp_path):
  training = make_training()
  carry = training.init(make_params())
  expected = run(training, carry, 1, 8)
  half = run(training, carry, 1, 4)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / 'half', half)
    checkpointer.wait_until_finished()
    restored = checkpointer.restore(tmp_path / 'half', half)
  assert_equal(restored, half)
  assert_equal(run(training, restored, 5, 8), expected)


def test_parameters_of_16_bits_are_stored_and_moved_as_such():
  training = make_training()
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), make_params())
  carry = training.init(params)
  w = carry[0]['linear']['w']
  assert w.dtype == carry[2]['linear/w'].dtype == jnp.bfloat16
  before = [x.dtype for x in jax.tree.leaves(carry)]
  carry = run(training, carry, 1, 2)
  expected, _ = training.unpack(*carry)
  assert (expected['linear']['w'] != params['linear']['w']).any()
  carry = training.refresh(*carry)
  assert [x.dtype for x in jax.tree.leaves(carry)] == before
  assert_equal(training.unpack(*carry)[0], expected)


def test_several_devices_give_what_one_gives():
  training = make_training()
  carry = training.init(make_params())
  expected = run(training, carry, 1, 4)
  mesh = jax.make_mesh(
    (4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  everywhere = jax.NamedSharding(mesh, jax.P())
  split = jax.NamedSharding(mesh, jax.P('data'))
  params, state = jax.device_put(carry[:2], everywhere)
  found = run(
    training,
    (params, state, carry[2]),
    1,
    4,
    lambda x: jax.device_put(x, split),
  )
  assert found[0]['linear']['w'].sharding.is_equivalent_to(everywhere, 2)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    found,
    expected,
  )


def test_shapes_are_known_without_computing_anything():
  training = make_training()
  params = make_params()
  shapes = jax.eval_shape(training.init, params)
  found = jax.eval_shape(lambda: training.init(params))
  assert shapes[0]['linear']['w'].shape == (1, round(0.4 * 256))
  actual = jax.tree.map(jnp.shape, training.init(params))
  assert jax.tree.map(lambda x: x.shape, shapes) == actual
  assert jax.tree.map(lambda x: x.shape, found) == actual


def test_masks_of_compact_training_are_those_of_masked_training():
  training = make_training()
  params, state, _ = training.init(make_params())
  masked = topkast.topkast(optax.adam(1e-2), **DENSITIES).init(make_params())
  sets = sparsity.active_sets(state, params)
  np.testing.assert_array_equal(
    sets.forward['linear']['w'], masked.sets.forward['linear']['w']
  )
  np.testing.assert_array_equal(
    sets.backward['linear']['w'], masked.sets.backward['linear']['w']
  )


def test_sets_that_never_change_need_no_dense_parameters():
  training = sparsity.compact.compact(
    sparsity.static(optax.sgd(0.1), density=0.3)
  )
  carry = training.init(make_params())
  assert carry[2] == {}
  assert not training.is_due(1)
  assert_equal(training.refresh(*carry), carry)


def test_a_saliency_over_all_layers_may_be_compact():
  params = make_params()
  tx = sparsity.snip(optax.sgd(0.1), scores=params, density=0.3)
  rows, _, _ = sparsity.compact.compact(tx).init(params)
  assert rows['linear']['w'].size == round(0.3 * 256)


def test_masks_of_a_pattern_may_be_compact():
  tx = sparsity.set_(
    optax.sgd(0.1),
    density=0.25,
    refresh_every=1,
    pattern=sparsity.patterns.block(2, 2),
  )
  training = sparsity.compact.compact(tx)
  params, state, stored = training.init(make_params())
  assert params['linear']['w'].size == 64
  _, state, _ = training.refresh(params, state, stored)
  assert state.entries['linear/w'].num_forward == 64


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: optax.sgd(0.1), 'expected a sparse method'),
    (
      lambda: optax.chain(topkast.topkast(optax.sgd(0.1), **DENSITIES)),
      'outermost',
    ),
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
def test_a_method_that_cannot_be_compact_is_an_error(make, message):
  with pytest.raises(ValueError, match=message):
    sparsity.compact.compact(make())


def test_layers_ranked_together_cannot_be_compact():
  with pytest.raises(ValueError, match="expected scope='layer', got 'global'"):
    make_training(scope='global').init(make_params())


def test_a_layer_that_cannot_be_compact_is_named_at_the_start():
  params = {'conv1_d': {'w': jnp.ones((3, 4, 5))}}
  with pytest.raises(ValueError, match='conv1_d/w: expected a matrix'):
    make_training().init(params)


def test_updates_without_parameters_are_an_error():
  training = make_training()
  params, state, _ = training.init(make_params())
  with pytest.raises(ValueError, match='expected parameters, got None'):
    training.update(params, state)


def test_gradients_are_given_to_refreshes_that_need_them_and_no_others():
  carry = make_training().init(make_params())
  with pytest.raises(ValueError, match='got some'):
    make_training().refresh(*carry, make_params())
  rigl = sparsity.compact.compact(
    sparsity.rigl(
      optax.sgd(0.1), density=0.3, refresh_every=2, stop_refresh_at=9
    )
  )
  assert rigl.needs_gradients
  with pytest.raises(ValueError, match='got none'):
    rigl.refresh(*rigl.init(make_params()))


def test_sets_of_a_compact_state_need_its_parameters():
  _, state, _ = make_training().init(make_params())
  with pytest.raises(ValueError, match='expected the parameters'):
    sparsity.active_sets(state)


def make_pruned():
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
  return net, params, masks, x


def test_inference_is_that_of_the_masked_weights():
  net, params, masks, x = make_pruned()
  predict = sparsity.compile_inference(net.apply, params, masks)
  expected = net.apply(jax.tree.map(jnp.multiply, params, masks), x)
  for batch in (x, x[:1]):
    np.testing.assert_allclose(
      predict(batch), expected[: len(batch)], rtol=1e-5, atol=1e-5
    )
  assert sparsity.compact.is_compact(predict.weights['conv2_d']['w'])
  assert not sparsity.compact.is_compact(predict.weights['linear']['w'])


def test_inference_finds_the_zeros_of_pruned_weights():
  net, params, masks, x = make_pruned()
  pruned = jax.tree.map(jnp.multiply, params, masks)
  predict = sparsity.compile_inference(
    net.apply, pruned, implementation='reference'
  )
  assert predict.weights['conv2_d']['w'].entries.num_forward == 30
  np.testing.assert_allclose(
    predict(x), net.apply(pruned, x), rtol=1e-5, atol=1e-5
  )


def test_inference_with_masks_of_another_tree_is_an_error():
  net, params, masks, _ = make_pruned()
  del masks['linear']
  with pytest.raises(ValueError, match='expected masks like the weights'):
    sparsity.compile_inference(net.apply, params, masks)
