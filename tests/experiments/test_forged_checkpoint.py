"""Checkpoints by others: none of their code runs, no size of theirs counts."""

import gc
import pickle
import shutil
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import checkpoint
from experiments import rundir

# One array: Orbax leaves reads of further ones behind, which print.
STATE = {'w': jnp.arange(6.0)}
_unpickled = []

# Orbax leaves the tasks of failed reads behind, which Python reports.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


@pytest.fixture(autouse=True, scope='module')
def collect():
  """Deletes such tasks before tests of another module."""
  yield
  gc.collect()


def _note(event, args):
  if event == 'pickle.find_class':
    _unpickled.append(args[1])


sys.addaudithook(_note)  # it cannot be removed


class Bomb:
  """Runs code where it is unpickled."""

  def __reduce__(self):
    return eval, ('_bomb_was_run',)


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sound')
  checkpoint.Checkpoints(folder, 2).save(1, STATE, {})
  return folder


@pytest.fixture
def saved(sound, tmp_path):
  """A copy of a folder with one checkpoint."""
  return shutil.copytree(sound, tmp_path / 'saved')


def restore(folder):
  """Returns the restored array; checks that nothing is unpickled."""
  _unpickled.clear()
  state, _ = checkpoint.Checkpoints(folder, None).restore(STATE)
  assert not _unpickled
  return state['w']


def flip(content):
  return bytes(
    x ^ (4 * (i == len(content) // 2)) for i, x in enumerate(content)
  )


@pytest.mark.parametrize(
  'alter',
  [lambda _: pickle.dumps(Bomb()), lambda _: b'', lambda x: x[:-9], flip],
  ids=['pickle', 'empty', 'truncated', 'flipped'],
)
def test_any_altered_file_is_refused_or_not_needed(saved, alter):
  paths = sorted(path for path in (saved / '1').rglob('*') if path.is_file())
  refused = 0
  for path in paths:
    content = path.read_bytes()
    path.write_bytes(alter(content))
    try:
      np.testing.assert_array_equal(restore(saved), STATE['w'])
    except rundir.FolderError:
      assert not _unpickled
      refused += 1
    path.write_bytes(content)
  assert refused >= 2  # the description and the array
  np.testing.assert_array_equal(restore(saved), STATE['w'])
