"""Compact training and inference equal the masked ones, in less memory."""

import functools
import math
import re

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsity
from sparsity import kernels
from sparsity.compact import entries
from sparsity.compact import refreshing
from sparsity.kernels import host
from sparsity.kernels import native
from sparsity.kernels.structure import is_traced
from tests import oracles
from tests.sparsity import trainers
import topkast

assert_close = functools.partial(oracles.assert_close, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ['topkast', 'powerprop', 'static', 'rigl'])
def test_compact_training_equals_masked_training_over_refreshes(name):
  t = trainers.trainer(name)
  params, state = t.train_masked(t.init_masked(), 0, 25)
  carry = t.training.init(trainers.make_params())
  sets = sparsity.active_sets(carry[1], carry[0])
  oracles.assert_same(sets, t.init_masked()[1].sets)
  carry = t.train(carry, 0, 25)
  found, found_state = t.training.unpack(*carry)
  if name == 'static':  # no host parameters, so zero outside B
    assert carry[2] == {}
    params = jax.tree.map(
      lambda m, x: jnp.where(m, x, 0), state.sets.backward, params
    )
  assert jax.tree.structure(found_state) == jax.tree.structure(state)
  oracles.assert_same(found_state.sets, state.sets)
  state = state._replace(expected=found_state.expected)  # any, once unpacked
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
  params, state = t.training.unpack(*t.training.pack(*carry))
  carry = carry[0], carry[1]._replace(expected=state.expected)
  oracles.assert_same((params, state), carry)
  carry = t.training.unpack(*t.train(t.training.pack(*carry), 10, 20))
  assert_close(t.train_masked(carry, 20, 30), expected)


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


@pytest.mark.parametrize('name', ['topkast', 'powerprop', 'rigl'])
def test_a_device_rearranges_its_entries_as_the_host_does(name, monkeypatch):
  t = trainers.trainer(name)
  start = t.training.init(trainers.make_params())
  expected = t.train(start, 0, 16)
  monkeypatch.setattr(refreshing, 'is_remote', lambda tree: True)
  found = t.train(start, 0, 16)
  sets = [sparsity.active_sets(x[1], x[0]) for x in (start, found)]
  assert sparsity.overlap(*(x.backward for x in sets), start[0]) < 1
  oracles.assert_same(found, expected)


def test_few_bytes_pass_between_host_and_device_at_a_refresh(monkeypatch):
  _, params, training = make_large()
  rows, state, host_params = training.init(params)
  rows = jax.tree.map(lambda x: x + 0.003 * jnp.sin(1e3 * x), rows)
  passed = []

  def record(function):
    def call(*args):
      result = function(*args)
      leaves = jax.tree.leaves(result)
      passed.append(sum(x.nbytes for x in leaves if x.strides != (0,)))
      assert {type(x) for x in leaves} == {np.ndarray}
      return result

    return call

  def on_host(tree):
    assert not any(isinstance(x, jax.Array) for x in jax.tree.leaves(tree))
    return tree

  monkeypatch.setattr(refreshing, 'is_remote', lambda tree: True)
  for name in ('fetch', 'send'):
    function = getattr(refreshing, name)
    monkeypatch.setattr(refreshing, name, record(function))
  # Nothing else comes from the device.
  monkeypatch.setattr(
    entries, 'to_numpy', lambda x: x if is_traced(x) else on_host(x)
  )
  new_rows, new, _ = training.refresh(rows, state, host_params)
  monkeypatch.undo()
  sets = [
    sparsity.active_sets(x, y) for x, y in ((state, rows), (new, new_rows))
  ]
  changed = sum(
    int(jnp.sum(a != b))
    for a, b in zip(*map(jax.tree.leaves, sets), strict=True)
  )
  num_backward = sum(x.num_backward for x in state.entries.values())
  assert 0 < changed < num_backward / 10
  assert sum(passed) <= 3 * 4 * num_backward + 12 * changed


SHAPE = (301, 243)  # large enough for several threads
COUNTS = (14_000, 36_000)


@pytest.fixture(params=['native', 'jax'])
def on_host(request, monkeypatch):
  """The C++ and the JAX implementations."""
  if request.param == 'jax':
    monkeypatch.setattr(host, 'is_available', lambda: False)
  elif not host.is_available():
    pytest.skip('native kernels are not built')
  return request.param


def make_masks(seed):
  """Returns A and B with constant numbers of entries."""
  order = np.random.default_rng(seed).permutation(np.prod(SHAPE))
  return tuple((order < count).reshape(SHAPE) for count in COUNTS)


def refresh(masks, dense):
  """Returns what a refresh makes of entries, their origins and a weight."""
  old, new = (kernels.from_masks(*pair, COUNTS) for pair in masks)
  origin = entries.origins(old, new, SHAPE)
  values = entries.take(dense, entries.places(old, SHAPE))
  fresh = entries.take(dense, entries.places(new, SHAPE))
  moved = entries.move(values, origin, fresh)
  return old, new, origin, moved, entries.write_back(dense, old, 2 * values)


def test_a_refresh_on_the_host_equals_one_under_jit(on_host):
  masks = [make_masks(seed) for seed in (0, 1)]
  dense = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
  found = refresh(masks, dense)
  oracles.assert_same(found, jax.jit(refresh)(masks, dense))
  old, new, origin, moved, written = found
  before, after = (entries.places(s, SHAPE) for s in (old, new))
  index = {place: i for i, place in enumerate(before.tolist())}
  expected = [index.get(place, -1) for place in after.tolist()]
  np.testing.assert_array_equal(origin, expected)
  assert min(expected) == -1
  np.testing.assert_array_equal(moved, dense.reshape(-1)[after])
  expected = np.where(masks[0][1], 2 * dense, dense)
  np.testing.assert_array_equal(written, expected)
  if on_host == 'native':  # aligned, so that JAX need not copy them
    arrays = (*old, origin, moved, written)
    assert {array.ctypes.data % 64 for array in arrays} == {0}


WIDTH = 192


@functools.cache
def make_large():
  """Returns a network, its parameters, and compact training with Adam."""

  def forward(x):
    x = jax.nn.relu(sparsity.modules.Linear(WIDTH)(x))
    x = x.reshape(-1, 4, 4, WIDTH // 16)
    x = sparsity.modules.Conv2D(WIDTH, 4, padding='VALID')(x)
    return x.reshape(-1, WIDTH)

  net = hk.without_apply_rng(hk.transform(forward))
  tx = topkast.topkast(
    optax.chain(topkast.exploration_penalty(1e-4), optax.adam(1e-3)),
    forward_density=0.1,
    backward_density=0.2,
  )
  params = net.init(jax.random.key(0), jnp.ones((2, WIDTH)))
  return net, params, sparsity.compact.compact(tx)


@pytest.mark.parametrize('name', ['native', 'xla'])
def test_a_step_has_no_array_of_the_dense_weights_size(name):
  if name == 'native' and not host.is_available():
    pytest.skip('native kernels are not built')
  net, params, training = make_large()
  rows, state, _ = training.init(params)

  def loss(weights, batch):
    return jnp.mean(jnp.square(net.apply(weights, batch) - batch))

  def step(params, state, batch):
    weights = sparsity.forward_weights(params, state)
    gradients = sparsity.grad(loss)(weights, batch)
    updates, state = training.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  batch = jnp.ones((2, WIDTH))
  with kernels.use(name):
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(rows, state, batch)
  compiled = lowered.compile()
  shapes = re.findall(
    r'\b(?:pred|bf16|[suf]\d+)\[([\d,]+)\]', compiled.as_text()
  )
  largest = max(math.prod(map(int, shape.split(','))) for shape in shapes)
  if name == 'xla':  # writes the weight out, which this test has to notice
    assert largest >= WIDTH * WIDTH
    return
  assert largest < WIDTH * WIDTH // 2
  # Temporaries of less than one dense weight.
  assert compiled.memory_analysis().temp_size_in_bytes < 4 * WIDTH * WIDTH


@functools.cache
def perceptron(depth, dtype):
  """Returns a training step of a perceptron, and its arguments."""

  def forward(x):
    for _ in range(depth):
      x = jax.nn.relu(sparsity.modules.Linear(256)(x.astype(dtype)))
    return x.astype(jnp.float32)

  net = hk.without_apply_rng(hk.transform(forward))
  batch = jax.random.normal(jax.random.key(0), (16, 256))
  tx = topkast.topkast(
    optax.sgd(1.0), forward_density=0.1, backward_density=0.2
  )
  training = sparsity.compact.compact(tx)
  params = net.init(jax.random.key(1), batch.astype(dtype))
  params = jax.tree.map(lambda x: x.astype(jnp.float32), params)

  def gradients(weights, batch):
    def loss(weights, batch):
      return jnp.mean(jnp.square(net.apply(weights, batch) - batch))

    return sparsity.grad(loss)(weights, batch)

  def step(params, state, batch):
    weights = sparsity.forward_weights(params, state)
    updates, state = training.update(gradients(weights, batch), state, params)
    return optax.apply_updates(params, updates), state

  *carry, _ = training.init(params)
  return step, gradients, (*carry, batch)


def test_one_layer_at_a_time_is_written_out():
  sizes = {}
  for depth in (1, 4):
    step, _, arguments = perceptron(depth, 'float32')
    with kernels.use('xla'):
      compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*arguments)
    sizes[depth] = compiled.compile().memory_analysis().temp_size_in_bytes
  dense = 4 * 256 * 256
  assert dense <= sizes[1] < 2.2 * dense  # in tiles and as a matrix
  # The gradients of three more layers take less than one dense weight.
  assert sizes[4] - sizes[1] < dense


def test_no_barrier_keeps_activations_for_the_backward_pass():
  # XLA may compute x again from the output before it, unless x is an operand.
  _, gradients, (params, state, batch) = perceptron(2, 'float32')
  weights = sparsity.forward_weights(params, state)
  with kernels.use('xla'):
    lowered = jax.jit(lambda *given: gradients(*given)).lower(weights, batch)
  barriers = re.findall(r'optimization_barrier.*', lowered.as_text())
  activations = [line.count('tensor<16x') for line in barriers]
  # Two forward products; three gradients, as the first layer needs no dx.
  assert sorted(activations) == [0, 0, 1, 1, 1]


@pytest.mark.parametrize('name', ['native', 'xla'])
def test_axes_of_the_batch_are_merged_for_native_kernels_only(name):
  # XLA fuses a concatenation into a product of its axes, and keeps it else.
  _, gradients, (params, state, batch) = perceptron(2, 'float32')
  weights = sparsity.forward_weights(params, state)
  apart = batch.reshape(2, 8, 256)
  if name == 'native' and native.problem():
    pytest.skip(native.problem())
  with kernels.use(name):
    compute = jax.jit(lambda *given: gradients(*given))
    text = compute.lower(weights, apart).as_text()
    jax.tree.map(assert_close, compute(weights, apart), compute(weights, batch))
  assert ('tensor<16x' in text) == (name == 'native')


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_one_exported_program_serves_every_platform(dtype):
  _, gradients, (params, state, batch) = perceptron(2, dtype)
  weights = sparsity.forward_weights(params, state)
  allowed = jax.export.DisabledSafetyCheck.custom_call
  exported = jax.export.export(
    jax.jit(gradients),
    platforms=('cpu', 'cuda', 'tpu'),
    disabled_checks=[allowed(f'sparsity_{name}') for name in native.TARGETS],
  )(weights, batch)
  text = exported.mlir_module()
  # Two products forward, one to the inputs, two to the weights.
  short = {'float32': 'f32', 'bfloat16': 'bf16'}[dtype]
  products = re.findall(r'dot_general.*: \(tensor<(?:\d+x)+(\w+)>', text)
  assert set(products) == {short}
  if not native.problem():
    assert len(re.findall(r'custom_call @sparsity_', text)) == 5
  masked = sparsity.compact.unpack(weights)
  dense = jax.jit(gradients)(masked, batch)
  found = exported.call(weights, batch)
  tolerance = {'float32': 1e-5, 'bfloat16': 2e-2}[dtype]
  for path, entry in state.entries.items():
    layer = path.split('/')[0]
    at = entries.places(entry.structure, entry.shape)
    expected = entries.take(dense[layer]['w'], at)
    actual = found[layer]['w'].reshape(-1)
    assert actual.dtype == jnp.float32
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def test_memory_follows_the_density_and_dense_parameters_lie_on_the_host():
  _, params, training = make_large()
  rows, state, host_params = training.init(params)
  num_bytes = sparsity.compact.num_bytes
  # Parameters and gradients once, Adam's moments twice: 4 arrays.
  dense = 4 * num_bytes(params)
  found = 2 * num_bytes(rows) + num_bytes(state)
  # Per entry of B 4 floats and an index, per entry of A two more indices.
  expected = 0.2 * (4 + 1) / 4 + 0.1 * 2 / 4
  assert found / dense == pytest.approx(expected, abs=0.03)
  assert {type(x) for x in host_params.values()} == {np.ndarray}


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
  for predict in (
    sparsity.compile_inference(net.apply, params, masks),
    # Without masks, from the zeros of the weights.
    sparsity.compile_inference(net.apply, pruned),
  ):
    np.testing.assert_allclose(predict(x), expected, rtol=1e-5, atol=1e-5)
    assert predict.weights['conv2_d']['w'].entries.num_forward == 30
    assert predict.weights['linear']['w'].shape == (6, 8)
  del masks['linear']
  with pytest.raises(ValueError, match='expected masks like the weights'):
    sparsity.compile_inference(net.apply, params, masks)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda sgd: sgd, 'expected a sparse method'),
    (lambda sgd: optax.chain(trainers.make_tx('static')), 'outermost'),
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


def test_weights_told_by_shape_alone_cannot_be_compact_but_an_array_can():
  training = trainers.trainer('powerprop').training
  params = [(jnp.ones((8, 9)), jnp.ones(9)), (jnp.ones((9, 4)), jnp.ones(4))]
  with pytest.raises(ValueError, match=r'named w, .* got 0/0, 1/0: by its'):
    training.init(params)
  with pytest.raises(ValueError, match='got 0/0, 1/0: by its'):
    training.pack(params, trainers.make_tx('powerprop').init(params))
  assert training.init(jnp.ones((10, 4)))[0].shape == (1, 16)


def test_missing_and_superfluous_arguments_are_errors():
  training = trainers.trainer('topkast').training
  params, state, host_params = trainers.init()
  with pytest.raises(ValueError, match='expected parameters, got None'):
    training.update(params, state)
  with pytest.raises(ValueError, match='expected the parameters'):
    sparsity.active_sets(state)
  with pytest.raises(ValueError, match='got gradients'):
    training.refresh(params, state, host_params, trainers.make_params())
