"""Compact weights train as masked ones do, through the experiment."""

import json

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import methods
from configs import mnist_dense
from experiments import image_classification
from experiments.common import build
from experiments.common import checkpoint
from experiments.common import experiment as experiment_lib
from experiments.common import feed
from experiments.common import storage as storage_lib
from experiments.models import layers
import sparsity
from sparsity import masked

NUM_STEPS = 20
SIZE = 784 * 16


def make_config(name, storage, alpha=2.0, num_steps=NUM_STEPS, **changes):
  config = mnist_dense.get_config('quick')
  config.seeds = (3,)
  config.model.hidden = (16,)
  config.powerprop.alphas = (alpha,)
  config.method = methods.section(
    name,
    density=0.1,
    num_steps=num_steps,
    refresh_every=3,
    grow_at=0.0 if alpha == 1 else 0.1,
    storage=storage,
  )
  config.optimizer.momentum = 0.9
  config.train.update(
    num_steps=num_steps, log_every=10, eval_every=10, checkpoint_every=10
  )
  config.prune.update(num_levels=2, lowest=0.1, output_layer='linear_1/w')
  for section, values in changes.items():
    if isinstance(values, dict):
      config[section].update(values)
    else:
      config[section] = values
  return config


def sections(config):
  plain = json.loads(json.dumps(config.to_dict()))
  plain.pop('experiment')
  return plain


def make_unit(*args, **changes):
  config = make_config(*args, **changes)
  [unit] = build.call(image_classification.build, sections(config)).units
  return unit


def trained(unit, chunks=((0, 10), (10, 10)), state=None):
  state, rows = state or unit.init(None), []
  for chunk in chunks:
    state, values = unit.train(state, *chunk)
    rows.append(jax.device_get(values))
  return state, rows


def unpack(config, state):
  [one] = build.call(image_classification.trained, sections(config))
  return one.storage.unpack(state)


def assert_close(a, b, **tolerance):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, **tolerance)


def assert_equal(a, b):
  assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize(
  ('name', 'alpha', 'chunks'),
  [
    ('topkast', 2.0, [(0, 10), (10, 10)]),
    ('rigl', 1.0, [(0, 10), (10, 10)]),
    # Weights that grow to the same value tie soon after but for rounding.
    ('rigl', 2.0, [(0, 2), (2, 3)]),
    ('set', 1.0, [(0, 10), (10, 10)]),
    ('snip', 1.0, [(0, 5)]),
    ('static', 2.0, [(0, 5)]),
  ],
)
def test_compact_training_equals_masked_training(name, alpha, chunks):
  masked = make_unit(name, 'masked', alpha)
  compact = make_unit(name, 'compact', alpha)
  expected, expected_rows = trained(masked, chunks)
  packed, rows = trained(compact, chunks)
  assert_close(rows, expected_rows, rtol=1e-4)
  found = unpack(make_config(name, 'compact', alpha), packed)
  assert found.step == sum(num_steps for _, num_steps in chunks)
  assert_equal(found.opt_state.sets, expected.opt_state.sets)
  if name in ('snip', 'static'):  # what never existed is not kept
    expected = expected._replace(
      params=jax.tree.map(
        lambda x, is_active: jnp.where(is_active, x, 0),
        expected.params,
        expected.opt_state.sets.backward,
      )
    )
  assert_close(found, expected, rtol=1e-4, atol=1e-5)
  evaluated = compact.evaluate(packed)
  assert_close(evaluated, masked.evaluate(expected), rtol=1e-4)
  [rows], [expected_rows] = compact.report(packed), masked.report(expected)
  for row, other in zip(rows, expected_rows, strict=True):
    split = row.pop('split')
    assert split == other.pop('split')
    if split != 'histogram':
      assert row == pytest.approx(other, rel=1e-4)


@pytest.mark.slow
def test_lenet_over_200_steps_is_the_same_to_rounding():
  options = dict(
    num_steps=200,
    model={'hidden': (64, 32)},
    prune={'output_layer': 'linear_2/w'},
    method={'refresh_every': 25},
  )
  chunks = [(i, 20) for i in range(0, 200, 20)]
  expected, expected_rows = trained(
    make_unit('topkast', 'masked', **options), chunks
  )
  packed, rows = trained(make_unit('topkast', 'compact', **options), chunks)
  assert rows[-1]['loss'] < 0.6 * rows[0]['loss']
  assert_close(rows, expected_rows, rtol=1e-2)
  found = unpack(make_config('topkast', 'compact', **options), packed)
  sets = found.opt_state.sets, expected.opt_state.sets
  assert sparsity.overlap(sets[0].forward, sets[1].forward) > 0.999
  for a, b in zip(
    jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True
  ):
    assert jnp.linalg.norm(a - b) <= 1e-3 * jnp.linalg.norm(b)


@pytest.mark.parametrize('name', ['topkast', 'rigl'])
def test_a_checkpoint_between_refreshes_goes_on_bit_for_bit(name, tmp_path):
  unit = make_unit(name, 'compact')
  whole, _ = trained(unit)
  half, _ = trained(unit, [(0, 10)])
  checkpoints = checkpoint.Checkpoints(tmp_path / 'checkpoints', 1)
  checkpoints.save(10, half, {})
  again, _ = checkpoints.restore(unit.like())
  assert_equal(again, half)
  for x in jax.tree.leaves(again.stored):
    assert isinstance(x, np.ndarray)
  end, _ = trained(unit, [(10, 10)], again)
  assert_equal(end, whole)


def test_the_device_holds_active_entries_only():
  state = make_unit('topkast', 'compact').init(None)
  held = storage_lib.on_device(state)
  assert max(x.size for x in jax.tree.leaves(held)) == round(0.2 * SIZE)
  assert state.stored['linear_0/w'].shape == (1, 784, 16)
  assert isinstance(state.stored['linear_0/w'], np.ndarray)


def test_how_chunks_are_cut_changes_nothing():
  unit = make_unit('rigl', 'compact')
  one, _ = trained(unit, [(0, 12)])
  # Before, at and after a refresh, and one step alone that is a refresh.
  several, _ = trained(unit, [(0, 2), (2, 1), (3, 2), (5, 5), (10, 2)])
  assert_equal(one, several)


def test_products_that_skip_train_as_masked_ones(monkeypatch):
  monkeypatch.setattr(masked, 'SMALLEST', 1)
  rows, params = {}, {}
  for storage in ('masked', 'masked_products'):
    unit = make_unit('topkast', storage)
    state, rows[storage] = trained(unit)
    params[storage] = state.params
  # Not the same kernels: not the same roundings.
  assert not np.array_equal(*(jax.tree.leaves(p)[1] for p in params.values()))
  for values in (rows, params):
    assert_close(*values.values(), rtol=1e-3, atol=1e-5)


def test_members_are_trained_one_by_one():
  config = make_config('topkast', 'compact', seeds=(0, 1), side_by_side='auto')
  units = build.call(image_classification.build, sections(config)).units
  assert [len(unit.members) for unit in units] == [1, 1]


def test_a_dry_run_tells_device_and_host_apart():
  lines = {}
  for storage in storage_lib.STORAGES:
    config = make_config('topkast', storage)
    [outline] = build.call(image_classification.outlines, sections(config))
    lines[storage] = experiment_lib.dry_run(outline)
  numbers = {
    storage: int(found[2].split()[1].replace(',', ''))
    for storage, found in lines.items()
  }
  # Values, momentum and one index of B; two indices of A: half of B.
  num_active = round(0.2 * SIZE)
  assert numbers['compact'] == pytest.approx(16 * num_active, rel=0.2)
  assert numbers['masked'] > 2.5 * numbers['compact']
  assert f'{4 * (SIZE + 160):,} bytes, seen by refreshes' in lines['compact'][4]
  assert len(lines['masked']) == len(lines['compact']) - 1


def test_a_layer_that_cannot_be_compact_is_named(monkeypatch):
  monkeypatch.setattr(layers, 'Linear', hk.Linear)
  with pytest.raises(
    ValueError, match=r'got others for linear_0/w.*masked storage'
  ):
    make_unit('topkast', 'compact')


@pytest.mark.parametrize(
  ('name', 'changes', 'message'),
  [
    ('gradual', {}, 'storage: .* number of active entries never changes'),
    ('magnitude', {}, 'storage: .* number of active entries never changes'),
    ('topkast', {'method': {'scope': 'global'}}, "scope: expected 'layer'"),
    ('snip', {'method': {'scope': 'global'}}, "scope: expected 'layer'"),
    (
      'set',
      {'method': {'pattern': dict(name='channels')}},
      "pattern.name: expected 'unstructured'",
    ),
    (
      'topkast',
      {'side_by_side': 'always', 'seeds': (0, 1)},
      "side_by_side: expected 'never' with config.method.storage='compact'",
    ),
  ],
)
def test_what_cannot_be_compact_is_refused_before_any_work(
  name, changes, message
):
  with pytest.raises(ValueError, match=message):
    make_unit(name, 'compact', **changes)


def test_the_dense_method_is_not_compact():
  with pytest.raises(ValueError, match="expected 'masked' of the dense method"):
    make_unit('dense', 'compact')


def test_an_unknown_storage_is_refused():
  with pytest.raises(ValueError, match=r"expected one of .*, got 'sparse'"):
    make_unit('topkast', 'sparse')


def test_masked_storage_leaves_everything_to_the_step():
  state = make_unit('topkast', 'masked').init(None)
  storage = feed.of_members(storage_lib.MASKED)
  assert storage.pack(state) is storage.unpack(state) is state
  assert state.stored is None
