"""Placement, hashes, and a process alone; runs are in tests/test_processes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import multihost


@pytest.mark.parametrize(
  ('flags', 'expected'),
  [
    ((None, None, None, None), None),
    (('slurm', None, None, None), (None, None, None, 'slurm')),
    (('auto', None, None, None), (None, None, None, None)),
    ((None, 'a:1', 3, 2), ('a:1', 3, 2, 'deactivate')),
  ],
)
def test_flags_say_where_a_process_is(flags, expected):
  assert multihost.placement(*flags) == expected


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (('auto', 'a:1', None, None), 'expected --distributed alone'),
    ((None, 'a:1', None, None), 'expected --process_count beside'),
    ((None, None, None, 0), 'expected --coordinator beside'),
    ((None, 'a:1', 2, 2), 'less than --process_count=2, got 2'),
    ((None, 'a:1', 2, -1), 'from 0'),
  ],
)
def test_flags_that_contradict_each_other_are_refused(flags, message):
  with pytest.raises(ValueError, match=message):
    multihost.placement(*flags)


ARRAYS = {
  'bool': np.arange(40) % 3 == 0,
  'int8': np.arange(40, dtype=np.int8) - 20,
  'int32': np.arange(40, dtype=np.int32),
  'float32': np.linspace(-1, 1, 40, dtype=np.float32),
  'bfloat16': np.linspace(-1, 1, 40).astype(jnp.bfloat16),
}


@pytest.mark.parametrize('name', ARRAYS)
def test_every_exchange_of_two_entries_has_a_hash_of_its_own(name):
  x = ARRAYS[name]
  copies = [x]
  for i in range(len(x)):
    for j in range(i):
      if x[i] != x[j]:
        copies.append(x.copy())
        copies[-1][[i, j]] = x[[j, i]]
  hashes = jax.jit(jax.vmap(multihost._hash))(jnp.array(copies))
  assert len(set(np.asarray(hashes).tolist())) == len(copies)


def test_arrays_divided_among_devices_have_no_hash():
  mesh = jax.sharding.Mesh(np.array(jax.devices()), ('x',))
  spec = jax.sharding.PartitionSpec
  whole = jax.sharding.NamedSharding(mesh, spec())
  parts = jax.sharding.NamedSharding(mesh, spec('x'))
  tree = {
    'whole': jax.device_put(jnp.arange(8), whole),
    'parts': jax.device_put(jnp.arange(8), parts),
    'host': np.arange(8),
  }
  names, hashes = multihost._hashes(tree)
  assert names == ["['whole']"]
  assert hashes.shape == (len(jax.devices()), 1)
  assert len(set(hashes[:, 0].tolist())) == 1


def test_a_process_alone_agrees_with_itself():
  assert multihost.is_first()
  assert multihost.largest(15) == 15
  assert multihost.total(0.5) == 0.5
  assert multihost.together(lambda: 3) == 3
  multihost.wait()
  multihost.check_same({'w': jnp.ones(3)})


def test_an_error_in_a_process_alone_is_raised_as_it_is():
  def fail():
    raise OSError('gone')

  with pytest.raises(OSError, match='gone'):
    multihost.in_first(fail)
  error = RuntimeError('Connection reset')
  assert multihost.explained(error) is error


def test_leaving_returns_the_exit_code():
  multihost.crash()
  assert multihost.leave(3) == 3
