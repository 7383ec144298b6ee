"""Flags of several processes, and digests; runs are in tests/test_processes."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common import processes


def parse(*flags):
  parser = argparse.ArgumentParser()
  processes.add_flags(parser)
  return processes.placement(parser.parse_args(flags))


def test_flags_say_where_a_process_is():
  assert parse() is None
  assert parse('--processes=2') is None
  assert parse('--distributed=slurm').cluster == 'slurm'
  place = parse('--coordinator=a:1', '--process_count=3', '--process_index=2')
  assert place == ('a:1', 3, 2, None)


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--processes=0'], 'expected --processes >= 1, got 0'),
    (['--processes=2', '--distributed=auto'], 'expected one of --processes'),
    (['--distributed=auto', '--coordinator=a:1'], 'expected one of --proc'),
    (['--coordinator=a:1'], '--process_count beside --coordinator'),
    (['--process_index=0'], '--coordinator beside --process_index'),
    (
      ['--coordinator=a:1', '--process_count=2', '--process_index=2'],
      'less than --process_count=2, got 2',
    ),
    (
      ['--coordinator=a:1', '--process_count=2', '--process_index=-1'],
      'from 0',
    ),
  ],
)
def test_flags_that_contradict_each_other_are_refused(flags, message):
  with pytest.raises(ValueError, match=message):
    parse(*flags)


ARRAYS = {
  'bool': np.arange(40) % 3 == 0,
  'int8': np.arange(40, dtype=np.int8) - 20,
  'int32': np.arange(40, dtype=np.int32),
  'float32': np.linspace(-1, 1, 40, dtype=np.float32),
  'bfloat16': np.linspace(-1, 1, 40).astype(jnp.bfloat16),
}


@pytest.mark.parametrize('name', ARRAYS)
def test_a_digest_tells_any_exchange_and_any_change_of_one_entry(name):
  x = ARRAYS[name]
  digest = jax.jit(processes._hash)
  seen = {int(digest(x))}
  for i in range(len(x)):
    for j in range(i):
      if x[i] != x[j]:
        other = x.copy()
        other[[i, j]] = x[[j, i]]
        seen.add(int(digest(other)))
  pairs = sum(x[i] != x[j] for i in range(len(x)) for j in range(i))
  assert len(seen) == 1 + pairs
  other = x.copy()
  other[7] = x[0]
  assert int(digest(other)) not in seen or x[7] == x[0]


def test_what_is_divided_among_devices_is_left_out():
  mesh = jax.sharding.Mesh(np.array(jax.devices()), ('x',))
  spec = jax.sharding.PartitionSpec
  whole = jax.sharding.NamedSharding(mesh, spec())
  parts = jax.sharding.NamedSharding(mesh, spec('x'))
  tree = {
    'whole': jax.device_put(jnp.arange(8), whole),
    'parts': jax.device_put(jnp.arange(8), parts),
    'host': np.arange(8),
  }
  names, digests = processes._digests(tree)
  assert names == ["['whole']"]
  assert digests.shape == (len(jax.devices()), 1)
  assert len(set(digests[:, 0].tolist())) == 1


def test_alone_a_process_agrees_with_itself():
  assert processes.is_first()
  assert processes.largest(15) == 15
  assert processes.total(0.5) == 0.5
  assert processes.together(lambda: 3) == 3
  with pytest.raises(OSError, match='gone'):
    processes.in_first(raise_, OSError('gone'))


def raise_(error):
  raise error
