"""What a save leaves in memory."""

import contextlib
import gc
import sys
import types

import jax.numpy as jnp
from orbax.checkpoint._src.serialization import tensorstore_utils as orbax
import pytest
import tensorstore

from experiments.common import checkpoint
from experiments.common import lean

NUM_ARRAYS = 12
NUM_SAVES = 20


@pytest.fixture
def undecided():
  """Whether Orbax is changed is found out once for each process."""
  lean._is_needed.cache_clear()
  yield
  lean._is_needed.cache_clear()


@pytest.fixture
def is_lost():
  """Skips where tensorstore frees what it makes."""
  if not lean._never_frees(tensorstore):
    pytest.skip('this tensorstore frees all')


def test_saves_leave_nothing_in_memory(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  state = {f'w{i}': jnp.ones((30, 10)) for i in range(NUM_ARRAYS)}
  blocks = []
  for step in range(1, 2 * NUM_SAVES + 1):
    checkpoints.save(step, state, {'loss': 0.5})
    if step % NUM_SAVES == 0:
      gc.collect()
      blocks.append(sys.getallocatedblocks())
  # Orbax as it is leaves 314 at each save, 60 of them counts of bytes.
  assert (blocks[1] - blocks[0]) / NUM_SAVES < 30


@pytest.mark.usefixtures('undecided', 'is_lost')
def test_orbax_is_changed_inside_only():
  with contextlib.suppress(KeyError), lean.lean():
    assert orbax.ts is not tensorstore
    raise KeyError
  assert orbax.ts is tensorstore


@pytest.mark.usefixtures('undecided', 'is_lost')
def test_folders_have_the_specification_that_orbax_gives_them(tmp_path):
  options = {
    'ocdbt_process_spec': 'process_0',
    'ocdbt_write_options': orbax.OcdbtKvStoreWriteOptions(
      orbax.OcdbtWriteMode.WRITE
    ),
  }
  folder = str(tmp_path / "an é'")
  expected = orbax.build_kvstore_tspec(folder, 'w', **options)
  with lean.lean():
    made = orbax.build_kvstore_tspec(folder, 'w', **options)
    folder_only = orbax.ts.KvStore.Spec({'driver': 'file', 'path': folder})
    store = orbax.ts.KvStore.open(folder_only).result()
    memory = orbax.ts.KvStore.Spec({'driver': 'memory'})
  assert made == expected
  assert store.path == folder
  assert type(memory) is tensorstore.KvStore.Spec


def another_module(monkeypatch):
  monkeypatch.setattr(lean, '_orbax', None)


def another_name(monkeypatch):
  monkeypatch.delattr(orbax, 'get_tensorstore_raw_bytes')


def another_result(monkeypatch):
  """Orbax that asks tensorstore for more than what it wrote down."""
  monkeypatch.setattr(
    orbax,
    'build_kvstore_tspec',
    lambda folder, name: type(orbax.ts.KvStore.Spec({
      'driver': 'file', 'path': f'{folder}/{name}'
    })),
  )  # fmt: skip


def another_tensorstore(monkeypatch):
  """One that frees all."""
  made = types.SimpleNamespace(to_json=lambda: {'base': {}})
  frees = types.SimpleNamespace(Spec=lambda spec: made)
  monkeypatch.setattr(orbax, 'ts', types.SimpleNamespace(KvStore=frees))


@pytest.mark.usefixtures('undecided')
@pytest.mark.parametrize(
  'change', [another_module, another_name, another_result, another_tensorstore]
)
def test_another_version_is_left_as_it_is(monkeypatch, change, tmp_path):
  change(monkeypatch)
  with lean.lean():
    assert not isinstance(orbax.ts, lean._Over)


@pytest.mark.usefixtures('undecided')
@pytest.mark.parametrize('change', [another_module])
def test_another_version_saves_and_restores(monkeypatch, change, tmp_path):
  change(monkeypatch)
  checkpoints = checkpoint.Checkpoints(tmp_path, 2)
  checkpoints.save(1, {'w': jnp.ones(2)}, {})
  state, _ = checkpoints.restore({'w': jnp.zeros(2)})
  assert state['w'].tolist() == [1.0, 1.0]
