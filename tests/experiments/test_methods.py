"""Methods: each trains masked and compact, at its density; config mistakes."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import flops
from experiments import methods
from experiments import step as step_lib
from experiments import storage as storage_lib
import sparsity
from sparsity import modules
from tests.experiments import small


def forward(x):
  x = jax.nn.relu(modules.Linear(10, name='linear_0')(x))
  return modules.Linear(3, name='linear_1')(x)


NETWORK = hk.without_apply_rng(hk.transform(forward))
INPUTS = jax.random.normal(jax.random.key(0), (8, 6))
TARGETS = jnp.tile(jnp.arange(8.0)[:, None] / 4, (1, 3))


def loss(weights, net_state, key, batch, is_training):
  del key, is_training
  inputs, targets = batch
  return jnp.mean((NETWORK.apply(weights, inputs) - targets) ** 2), (
    {}, net_state,
  )  # fmt: skip


def make(name, storage='masked', num_devices=1, **changes):
  config = small.image()
  section = small.method(name, storage, refresh_every=2)
  if name == 'magnitude':
    section['at'] = 1
  if name == 'gradual':
    section.update(start=0, end=2, prune_every=1)
  if name == 'acdc':
    section.update(start=1, end=3, phase_steps=1)
  return methods.make_method(
    {**section, **changes},
    {'alpha': 2.0, 'optimizer_in': 'theta'},
    config['optimizer'],
    num_devices,
  )


@functools.cache
def trained(name, storage='masked'):
  """Returns the method, the masked state after 3 steps, and the losses."""
  method = make(name, storage)

  def init(key):
    return NETWORK.init(key, INPUTS), {}

  scores = None
  if method.needs_scores:
    scores = jax.jit(NETWORK.init)(methods.init_key(4), INPUTS)
    scores = jax.tree.map(jnp.abs, scores)
  _, storage = method.make(3, scores)
  start = functools.partial(methods.init_state, method, init, 3)
  state = storage.pack(jax.jit(start)(scores))
  objective = step_lib.Objective(loss, method, 1, skip_nonfinite=False)
  key, batch = methods.training_key(3), (INPUTS, TARGETS)

  @jax.jit
  def advance(state, first, last):
    step_key = jax.random.fold_in(key, state.step)
    return step_lib.train_step(objective, state, 3, step_key, batch)

  measure = jax.jit(
    lambda state, i: step_lib.measure_step(objective, state, key, batch)
  )
  losses = []
  for step in range(3):
    state, sums = storage_lib.make_steps(
      storage, advance, measure, state, step, 1
    )
    losses.append(float(sums['loss']))
  return method, storage.unpack(state), losses


COMPACT = ('rigl', 'set', 'snip', 'static', 'topkast')


@pytest.mark.parametrize(
  ('name', 'storage'),
  [(name, 'masked') for name in methods.METHODS]
  + [(name, 'compact') for name in COMPACT],
)
def test_every_method_trains_and_ends_at_its_density(name, storage):
  method, state, losses = trained(name, storage)
  assert losses[-1] < losses[0]
  np.testing.assert_allclose(losses, trained(name)[2], rtol=1e-5)
  density = method.density(state.params, state.opt_state)
  if name == 'dense':
    assert density == 1
    assert method.masks(state.params, state.opt_state) is None
    return
  assert density == pytest.approx(0.2)
  masks = method.masks(state.params, state.opt_state)
  weights = method.to_weights(state.params)
  seen = method.forward_weights(weights, state.opt_state)
  for layer in ('linear_0', 'linear_1'):
    mask = np.asarray(masks[layer]['w'])
    assert mask.sum() == round(0.2 * mask.size)
    expected = np.where(mask, weights[layer]['w'], 0)
    np.testing.assert_array_equal(seen[layer]['w'], expected)


def test_excluded_layers_stay_dense_and_do_not_count():
  method = make('static', exclude=('linear_1',))
  tx, _ = method.make(3)
  phi = NETWORK.init(jax.random.key(1), INPUTS)
  masks = sparsity.active_sets(tx.init(phi)).forward
  assert masks['linear_1']['w'].all()
  assert masks['linear_0']['w'].sum() == 12


@pytest.mark.parametrize('optimizer_in', methods.SPACES)
def test_the_optimizer_acts_on_theta_or_phi(optimizer_in):
  method = methods.make_method(
    {'name': 'dense', 'storage': 'masked'},
    {'alpha': 3.0, 'optimizer_in': optimizer_in},
    {**small.image()['optimizer'], 'momentum': 0.0, 'weight_decay': 0.5},
    1,
  )
  phi, gradient = {'l': {'w': jnp.full((1, 1), 2.0)}}, 5.0
  tx, _ = method.make(0)
  updates, _ = tx.update(
    {'l': {'w': jnp.full((1, 1), gradient)}}, tx.init(phi), phi
  )
  # dtheta/dphi = 3 phi^2 = 12; theta = 8.
  expected = {'theta': 12 * (5 + 0.5 * 8), 'phi': 12 * 5 + 0.5 * 2}
  np.testing.assert_allclose(
    updates['l']['w'], -0.1 * expected[optimizer_in], rtol=1e-6
  )


@pytest.mark.parametrize(
  ('name', 'changes', 'message'),
  [
    ('acdc', {'end': 2}, 'room for a sparse and a dense phase'),
    ('acdc', {'storage': 'compact'}, 'config.method.storage: .*never changes'),
    ('topkast', {'forward_density': 0.5}, 'forward_density=0.5, backward'),
    ('topkast', {'penalty_kind': 'l3'}, "'l3'"),
    ('set', {'exclude': ('(',)}, 'expected a regular expression'),
    ('set', {'storage': 'sparse'}, r"storage: expected one of .*'sparse'"),
    ('dense', {'storage': 'compact'}, "expected 'masked' with the dense"),
    ('magnitude', {'storage': 'compact'}, 'config.method.storage'),
    ('topkast', {'storage': 'compact', 'scope': 'global'},
     "config.method.scope: expected 'layer' with storage='compact'"),
  ],
)  # fmt: skip
def test_a_mistake_in_a_method_is_refused(name, changes, message):
  with pytest.raises(ValueError, match=message):
    make(name, **changes)


def test_a_config_names_a_pattern_and_flops_count_its_units():
  config = small.image()
  assert methods.make_pattern({'name': 'fan_in'}).name == 'constant fan-in'
  plain = flops.report(config)
  section = {'name': 'block', 'rows': 28, 'columns': 8}
  config['method'] |= {'pattern': section, 'otherwise': 'error'}
  blocks = flops.report(config)
  assert blocks.active_entries != plain.active_entries
  config['method']['pattern'] = {'name': 'block', 'rows': 4, 'colums': 4}
  with pytest.raises(ValueError, match=r'method\.pattern: unknown key .colums'):
    flops.report(config)
