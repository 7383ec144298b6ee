import json
import logging
import pathlib
import shutil
from typing import Any
from typing import NamedTuple

import jax
from jax.experimental import mesh_utils
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.common import checkpoint


class State(NamedTuple):
  params: Any
  opt_state: Any
  active: Any
  key: Any
  rest: Any


def make_state(seed: int = 0) -> State:
  shapes = {'lenet/~/linear': (5, 4), 'lenet/~/linear_1': (4, 3)}
  keys = jax.random.split(jax.random.key(seed), len(shapes))
  params = {
    name: {'w': jax.random.normal(key, shape), 'b': jnp.zeros(shape[1])}
    for key, (name, shape) in zip(keys, shapes.items(), strict=True)
  }
  tx = optax.chain(optax.clip(1.0), optax.adam(1e-3))
  return State(
    params,
    tx.init(params),
    jax.tree.map(lambda x: x > 0, params),
    jax.random.PRNGKey(seed),
    {
      'typed_key': jax.random.key(seed),
      'bfloat16': jnp.array([0.1, jnp.nan, -0.0], jnp.bfloat16),
      'count': jnp.int32(seed),
      'empty': jnp.zeros((0, 3), jnp.int32),
      'nothing': None,
      'host': np.arange(3, dtype=np.int32),
    },
  )


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert (x.shape, x.dtype) == (y.shape, y.dtype)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize(
  'make_like',
  [
    lambda: make_state(seed=1),
    lambda: jax.eval_shape(make_state),
  ],
  ids=['arrays', 'structures'],
)
def test_a_state_comes_back_bit_for_bit(tmp_path, make_like):
  state = make_state()
  metadata = {'global_step': 7, 'best': None, 'nested': {'sizes': (1, 2)}}
  checkpoint.Checkpoints(tmp_path, 2).save(7, state, metadata)
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  restored, back = checkpoints.restore(make_like())
  assert_same(restored, state)
  assert back == {
    'global_step': 7,
    'best': None,
    'nested': {'sizes': [1, 2]},
  }


def test_a_sharded_state_comes_back_where_it_was(tmp_path):
  mesh = jax.sharding.Mesh(mesh_utils.create_device_mesh((4,)), ('x',))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('x'))
  state = {'w': jax.device_put(jnp.arange(8.0), sharding)}
  checkpoints = checkpoint.Checkpoints(tmp_path, 1)
  checkpoints.save(1, state, {})
  restored, _ = checkpoints.restore(state)
  assert_same(restored, state)
  assert restored['w'].sharding == sharding


def test_the_newest_are_kept_and_some_for_ever(tmp_path):
  state = {'w': jnp.ones(2)}
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  assert checkpoints.latest() is None
  for step in range(1, 5):
    checkpoints.save(step, state, {}, keep_always=step == 2)
  assert checkpoints.steps() == [2, 3, 4]
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)  # Another process.
  for step in range(5, 9):
    checkpoints.save(step, state, {}, keep_always=step == 6)
  assert checkpoints.steps() == [2, 6, 7, 8]
  assert checkpoints.latest() == 8
  on_disk = {p.name for p in tmp_path.iterdir() if p.is_dir()}
  assert on_disk == {'2', '6', '7', '8'}


def test_an_older_step_can_be_asked_for(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  for step in (1, 2):
    checkpoints.save(step, {'w': jnp.ones(2) * step}, {'step': step})
  state, metadata = checkpoints.restore({'w': jnp.zeros(2)}, step=1)
  assert metadata == {'step': 1}
  np.testing.assert_array_equal(state['w'], [1.0, 1.0])


@pytest.mark.parametrize('step', [None, 3])
def test_an_absent_checkpoint_is_an_error(tmp_path, step):
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  with pytest.raises(ValueError, match='expected a checkpoint'):
    checkpoints.restore({'w': jnp.zeros(2)}, step=step)


@pytest.mark.parametrize('step', [4, 5])
def test_a_step_that_is_not_later_is_an_error(tmp_path, step):
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  checkpoints.save(5, {'w': jnp.ones(2)}, {})
  with pytest.raises(ValueError, match='expected a step later than 5'):
    checkpoints.save(step, {'w': jnp.zeros(2)}, {})
  np.testing.assert_array_equal(
    checkpoints.restore({'w': jnp.zeros(2)})[0]['w'], [1.0, 1.0]
  )


@pytest.mark.parametrize(
  ('like', 'message'),
  [
    (
      {'a': {'w': jnp.zeros((2, 4)), 'b': jnp.zeros(3)}},
      r"\['a'\]\['w'\] is float32\[2,3\] there, float32\[2,4\] expected",
    ),
    (
      {'a': {'w': jnp.zeros((2, 3), jnp.bfloat16), 'b': jnp.zeros(3)}},
      r"\['a'\]\['w'\] is float32\[2,3\] there, bfloat16\[2,3\] expected",
    ),
    (
      {'a': {'w': jnp.zeros((2, 3)), 'b': jnp.zeros(3), 'c': jnp.zeros(1)}},
      r"\['a'\]\['c'\] is absent there, float32\[1\] expected",
    ),
    (
      {'a': {'w': jnp.zeros((2, 3))}},
      r"\['a'\]\['b'\] is float32\[3\] there, absent expected",
    ),
  ],
)
def test_another_structure_is_an_error_that_names_it(tmp_path, like, message):
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  checkpoints.save(1, {'a': {'w': jnp.zeros((2, 3)), 'b': jnp.zeros(3)}}, {})
  with pytest.raises(ValueError, match=message):
    checkpoints.restore(like)
  assert checkpoints.steps() == [1]


def test_another_format_is_an_error(tmp_path, monkeypatch):
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  checkpoints.save(1, {'w': jnp.zeros(2)}, {})
  monkeypatch.setattr(checkpoint, 'FORMAT', checkpoint.FORMAT + 1)
  with pytest.raises(ValueError, match='expected format 2, got 1'):
    checkpoints.restore({'w': jnp.zeros(2)})


def truncate_description(folder: pathlib.Path):
  path = folder / '_CHECKPOINT_METADATA'
  path.write_bytes(path.read_bytes()[:100])


def remove_data(folder: pathlib.Path):
  shutil.rmtree(folder / 'default/d')


def exchange_data(folder: pathlib.Path):
  """A state that can be read but is not the one that was saved."""
  shutil.rmtree(folder / 'default')
  shutil.copytree(folder.parent / '1/default', folder / 'default')


@pytest.mark.parametrize(
  'damage', [truncate_description, remove_data, exchange_data]
)
def test_an_unreadable_checkpoint_is_set_aside_for_the_one_before(
  tmp_path, damage, caplog
):
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  for step in (1, 2):
    checkpoints.save(step, {'w': jnp.ones(2) * step}, {'step': step})
  damage(tmp_path / '2')
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  with caplog.at_level(logging.WARNING):
    state, metadata = checkpoints.restore({'w': jnp.zeros(2)})
  assert metadata == {'step': 1}
  np.testing.assert_array_equal(state['w'], [1.0, 1.0])
  assert 'Checkpoint 2 cannot be read' in caplog.text
  assert checkpoints.latest() == 1
  assert (tmp_path / 'unreadable-2').is_dir()
  checkpoints.save(2, {'w': jnp.ones(2)}, {})  # The step is free again.
  assert checkpoint.Checkpoints(tmp_path, 2).steps() == [1, 2]


@pytest.mark.parametrize('step', [None, 1])
def test_without_a_readable_checkpoint_the_error_says_why(tmp_path, step):
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  checkpoints.save(1, {'w': jnp.ones(2)}, {})
  truncate_description(tmp_path / '1')
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  with pytest.raises(ValueError, match='step 1: ValueError: the description'):
    checkpoints.restore({'w': jnp.zeros(2)}, step=step)
  assert (tmp_path / '1').is_dir()


def test_what_a_killed_save_left_is_not_a_checkpoint(tmp_path):
  checkpoint.Checkpoints(tmp_path, 2).save(1, {'w': jnp.ones(2)}, {})
  shutil.copytree(tmp_path / '1', tmp_path / '2.orbax-checkpoint-tmp')
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  assert checkpoints.steps() == [1]
  checkpoints.save(2, {'w': jnp.ones(2)}, {})
  assert checkpoints.steps() == [1, 2]


@pytest.mark.parametrize('leaf', [1.0, 'text'])
def test_a_leaf_that_is_no_array_is_an_error(tmp_path, leaf):
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  with pytest.raises(ValueError, match=r"expected arrays.* at \['a'\]"):
    checkpoints.save(1, {'a': leaf}, {})
  assert checkpoints.latest() is None


def test_metadata_must_be_plain_data(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  with pytest.raises(TypeError):
    checkpoints.save(1, {'a': jnp.ones(2)}, {'f': print})
  assert checkpoints.latest() is None
  checkpoints.save(1, {'a': jnp.ones(2)}, {'loss': float('nan')})
  assert checkpoints.restore({'a': jnp.ones(2)})[1] == {'loss': 'nan'}
  json.loads(
    (tmp_path / '1/_CHECKPOINT_METADATA').read_text(),
    parse_constant=pytest.fail,
  )


def test_keep_is_at_least_one(tmp_path):
  with pytest.raises(ValueError, match='keep >= 1, got 0'):
    checkpoint.Checkpoints(tmp_path, 0)
