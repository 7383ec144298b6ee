import functools
import gc
import logging
import pathlib
import random as random_lib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import checkpoint
from experiments import rundir

# Orbax leaves the tasks of failed reads behind, which Python reports.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


@pytest.fixture(autouse=True, scope='module')
def collect():
  """Deletes such tasks before tests of another module."""
  yield
  gc.collect()


def make_state():
  key = jax.random.key(0)
  params = {'linear': {'w': jax.random.normal(key, (5, 4)), 'b': jnp.zeros(4)}}
  return {
    'params': params,
    'opt_state': optax.adam(1e-3).init(params),
    'active': jax.tree.map(lambda x: x > 0, params),
    'key': jax.random.PRNGKey(0),
    'typed_key': key,
    'bfloat16': jnp.array([0.1, jnp.nan, -0.0], jnp.bfloat16),
    'count': jnp.int32(0),
    'empty': jnp.zeros((0, 3), jnp.int32),
    'nothing': None,
    'host': np.arange(3, dtype=np.int32),
  }


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert (x.shape, x.dtype) == (y.shape, y.dtype)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def save(folder, *steps, state=None):
  """Saves a checkpoint of each step, filled with the step by default."""
  checkpoints = checkpoint.Checkpoints(folder, 2)
  for step in steps:
    filled = {'w': jnp.full(2, step, jnp.float32)}
    checkpoints.save(step, state or filled, {'loss': step})


def restore(folder, max_to_keep=2, step=None):
  """Returns the step that a state was filled with."""
  checkpoints = checkpoint.Checkpoints(folder, max_to_keep)
  state, metadata = checkpoints.restore({'w': jnp.zeros(2)}, step)
  assert (state['w'] == metadata['step']).all()
  assert metadata['loss'] == metadata['step']
  return metadata['step']


def test_a_state_comes_back_bit_for_bit(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  metadata = {'best': None, 'nested': {'sizes': (1, 2)}, 'loss': float('nan')}
  checkpoints.save(7, make_state(), metadata)
  restored, metadata = checkpoints.restore(jax.eval_shape(make_state))
  assert_same(restored, make_state())
  nested = {'sizes': [1, 2]}
  assert metadata == {'best': None, 'nested': nested, 'loss': 'nan', 'step': 7}


def test_the_newest_are_kept_and_some_always(tmp_path):
  state = {'w': jnp.ones(2)}
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  assert checkpoints.latest() is None
  for step in range(1, 5):
    checkpoints.save(step, state, {}, keep_always=step == 2)
  assert checkpoints.steps() == [2, 3, 4]
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)  # another session
  for step in range(5, 9):
    checkpoints.save(step, state, {}, keep_always=step == 6)
  assert checkpoints.steps() == [2, 6, 7, 8]
  checkpoints.save(9, state, {}, keep_always=True)  # among the newest two
  assert checkpoints.steps() == [2, 6, 8, 9]
  assert checkpoints.latest() == 9
  assert {path.name for path in tmp_path.iterdir()} == {'2', '6', '8', '9'}


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'w': jnp.zeros((2, 4))}, "w'] is float32[2,3] there, float32[2,4] exp"),
    ({'c': jnp.zeros(1)}, "c'] is absent there, float32[1] expected"),
    ({'b': None}, "b'] is float32[3] there, absent expected"),
  ],
)
def test_another_structure_is_an_error_that_names_it(
  tmp_path, changes, message
):
  like = {'w': jnp.zeros((2, 3)), 'b': jnp.zeros(3)}
  save(tmp_path, 1, state={'a': like})
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  message = re.escape(f"['a']['{message}")
  with pytest.raises(rundir.FolderError, match=message) as error:
    checkpoints.restore({'a': {**like, **changes}})
  assert f'(version {rundir.VERSION}, now' in str(error.value)
  assert checkpoints.steps() == [1]


def edit_description(old, new, folder: pathlib.Path):
  path = folder / '_CHECKPOINT_METADATA'
  text = path.read_text()
  assert text.count(old) == 1
  path.write_text(text.replace(old, new))


def exchange(part, folder: pathlib.Path):
  """Takes a part of another checkpoint, or all of it."""
  shutil.rmtree(folder / part)
  shutil.copytree(folder.parent / '1' / part, folder / part)


def replace(by, folder: pathlib.Path):
  """Puts a file, or a link to the moved checkpoint, in its place."""
  moved = folder.with_name(f'moved-{len(list(folder.parent.iterdir()))}')
  folder.rename(moved)
  if by == 'file':
    folder.write_text('')
  else:
    folder.symlink_to(moved)


DAMAGES = [
  (
    functools.partial(edit_description, '\\"loss\\": 2', '\\"loss\\": 3'),
    'description of its contents is altered',
  ),
  (
    functools.partial(edit_description, '"format": 4', '"format": 1'),
    'expected format 4, got 1 of version',
  ),
  (functools.partial(exchange, 'default'), 'checksum of its arrays differs'),
  (functools.partial(exchange, ''), 'was saved at step 1'),
  (functools.partial(replace, 'file'), 'a link or a file, not a folder'),
  (functools.partial(replace, 'link'), 'a link or a file, not a folder'),
]


@pytest.fixture(scope='module')
def two_saved(tmp_path_factory):
  folder = tmp_path_factory.mktemp('two')
  save(folder, 1, 2)
  return folder


@pytest.mark.parametrize(('damage', 'message'), DAMAGES)
def test_an_unreadable_checkpoint_is_set_aside_for_the_one_before(
  tmp_path, two_saved, damage, message, caplog
):
  shutil.copytree(two_saved, tmp_path, dirs_exist_ok=True)
  assert restore(tmp_path, step=1) == 1
  damage(tmp_path / '2')
  before = sorted(tmp_path.rglob('*'))
  # Read-only, it is passed over and stays.
  assert restore(tmp_path, max_to_keep=None) == 1
  assert sorted(tmp_path.rglob('*')) == before
  caplog.clear()
  with caplog.at_level(logging.WARNING):
    assert restore(tmp_path) == 1
  assert f'Checkpoint {tmp_path / "2"} cannot be read' in caplog.text
  assert message in caplog.text
  save(tmp_path, 2)  # the step is free again
  assert restore(tmp_path) == 2
  damage(tmp_path / '2')
  assert restore(tmp_path) == 1
  names = {path.name for path in tmp_path.iterdir()}
  assert {'unreadable-2', 'unreadable-2-2'} < names


def test_200_flipped_bits_in_any_file_are_harmless_or_found(two_saved):
  files = [x for x in (two_saved / '2').rglob('*') if x.is_file()]
  random, found = random_lib.Random(0), []
  for path in random.choices(files, k=200):
    content = path.read_bytes()
    at, bit = random.randrange(len(content) or 1), random.randrange(8)
    flipped = bytearray(content or b'?')
    flipped[at] ^= 1 << bit
    path.write_bytes(flipped)
    found.append(restore(two_saved, max_to_keep=None))
    path.write_bytes(content)
  assert set(found) == {1, 2}


def test_an_unreadable_checkpoint_is_not_rotated_out(tmp_path):
  save(tmp_path, 1, 2)
  path = tmp_path / '1' / '_CHECKPOINT_METADATA'
  path.write_bytes(path.read_bytes()[:100])
  save(tmp_path, 3, 4)
  assert checkpoint.Checkpoints(tmp_path, None).steps() == [1, 3, 4]


def test_the_remains_of_a_killed_save_or_deletion_are_removed(tmp_path):
  save(tmp_path, 1)
  for name in ('2.orbax-checkpoint-tmp', 'deleted-0'):
    shutil.copytree(tmp_path / '1', tmp_path / name)
  assert checkpoint.Checkpoints(tmp_path, None).steps() == [1]
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  assert checkpoints.steps() == [1]
  save(tmp_path, 2)
  assert {path.name for path in tmp_path.iterdir()} == {'1', '2'}
