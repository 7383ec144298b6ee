"""Checkpoints from others: no code of theirs runs, no size of theirs counts."""

import contextlib
import json
import pickle
import resource
import sys

import jax.numpy as jnp
import pytest
import tensorstore

from experiments.common import checkpoint
from experiments.common import run

STATE = {'w': jnp.arange(6.0), 'mask': jnp.arange(6) > 2}
_unpickled = []
_is_watched = False


def watch(event, args):
  if _is_watched and event == 'pickle.find_class':
    _unpickled.append(args)


sys.addaudithook(watch)  # it cannot be taken off


class Bomb:
  """Runs code where it is unpickled."""

  def __reduce__(self):
    return eval, ('_bomb_was_run',)


@pytest.fixture
def saved(tmp_path):
  checkpoint.Checkpoints(tmp_path, 2).save(1, STATE, {})
  return tmp_path


def restore(folder):
  global _is_watched
  _is_watched = True
  try:
    return checkpoint.Checkpoints(folder, 2).restore(STATE)[0]
  finally:
    _is_watched = False


def test_restoring_unpickles_nothing(saved):
  restore(saved)
  assert not _unpickled


def test_the_watch_sees_what_is_unpickled():
  global _is_watched
  _is_watched = True
  with pytest.raises(NameError, match='_bomb_was_run'):
    pickle.loads(pickle.dumps(Bomb()))
  _is_watched = False
  assert _unpickled.pop()[1] == 'eval'
  _unpickled.clear()


def files_of(folder):
  return sorted(p.relative_to(folder) for p in folder.rglob('*') if p.is_file())


# Orbax leaves tasks of the reads that it gives up.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_pickle_in_the_place_of_any_file_is_not_run(saved):
  names = files_of(saved / '1')
  assert len(names) >= 4
  for name in names:
    path = saved / '1' / name
    content = path.read_bytes()
    path.write_bytes(pickle.dumps(Bomb()))
    with contextlib.suppress(run.FolderError):  # some are not needed
      restore(saved)
    assert not _unpickled
    path.write_bytes(content)
  restore(saved)


@pytest.mark.parametrize(
  'change',
  [{'shape': [2**40]}, {'shape': [2**40], 'chunks': [2**40]},
   {'chunks': [2**33]}, {'dtype': '|V1000000000'}],
)  # fmt: skip
def test_sizes_that_are_written_there_do_not_take_memory(saved, change):
  base = f'file://{saved}/1/default/'
  store = tensorstore.KvStore.open({'driver': 'ocdbt', 'base': base}).result()
  [key] = [x for x in store.list().result() if x == b'w/.zarray']
  fields = json.loads(store.read(key).result().value)
  store.write(key, json.dumps({**fields, **change}).encode()).result()
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  with pytest.raises(run.FolderError, match='expected a readable checkpoint'):
    restore(saved)
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert after - before < 200_000  # KiB
