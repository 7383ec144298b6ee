"""Several processes on loopback, each with one device."""

import re
import signal
import time

import jax
import numpy as np
import pytest

from experiments import mesh as mesh_lib
from experiments import metrics
from experiments import multihost
from experiments import rundir
import launch
from tests import killing
from tests import test_faults

SHORT = '--config.train.num_steps=20'  # two checkpoints


@pytest.fixture(scope='module', autouse=True)
def server(tmp_path_factory):
  with killing.server(tmp_path_factory.mktemp('cache')):
    yield


def in_processes(workdir, num, *flags):
  """Trains in several processes; the first alone prints."""
  started = killing.start_several(workdir, num, [SHORT, *flags])
  ended = [killing.finish(one) for one in started]
  assert [one.code for one in ended] == [0] * num, ended
  assert not any(lines(one) for one in ended[1:])
  return workdir


def lines(ended):
  """Returns the output of a process, without the greeting of Gloo."""
  found = ended.output.splitlines()
  return [line for line in found if not line.startswith('[Gloo]')]


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """The folder of a run of two processes."""
  return in_processes(tmp_path_factory.mktemp('two') / 'run', 2)


def assert_close(a, b):
  """Checks that two runs agree to rounding, and their masks bit for bit."""
  one, other = (test_faults.last_state(folder) for folder in (a, b))
  assert one.keys() == other.keys()
  assert sum(x.dtype == bool or 'columns' in k for k, x in one.items()) >= 2
  for path, x in one.items():
    if np.issubdtype(x.dtype, np.floating):
      np.testing.assert_allclose(x, other[path], rtol=1e-4, atol=1e-6)
    else:
      np.testing.assert_array_equal(x, other[path], err_msg=path)
  rows, others = metrics.read(a), metrics.read(b)
  assert [row['split'] for row in rows] == [row['split'] for row in others]
  losses = [[r['loss'] for r in x if 'loss' in r] for x in (rows, others)]
  np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize('storage', ['masked', 'compact'])
def test_two_processes_equal_one_with_two_devices(storage, tmp_path, two):
  assert rundir.read_status(two)['status'] == 'done'
  flags = [SHORT, '--config.train.num_devices=2']
  if storage == 'compact':
    flags.append('--config.method.storage=compact')
    two = in_processes(tmp_path / 'run2', 2, flags[-1])
  two_devices = {'XLA_FLAGS': '--xla_force_host_platform_device_count=2'}
  plan = killing.Plan(environment=two_devices)
  ended = killing.run(tmp_path / 'run', flags, plan)
  assert ended.code == 0, ended.output
  assert_close(two, tmp_path / 'run')


@pytest.mark.parametrize('victim', [0, 1])
def test_the_other_ends_soon_when_one_is_killed_and_all_go_on(
  tmp_path, two, victim
):
  workdir = tmp_path / 'run'
  started = killing.start_several(workdir, 2, [SHORT])
  killing.wait_for(lambda: test_faults.steps(workdir))
  started[victim][0].kill()
  start = time.monotonic()
  survivor = killing.finish(started[1 - victim])
  assert time.monotonic() - start < 3 * multihost.HEARTBEAT
  killing.finish(started[victim])
  # Under load JAX's own thread may be first to see that the coordinator died.
  if victim or survivor.code != -signal.SIGABRT:
    assert survivor.code == launch.MACHINE, survivor
    assert 'another process' in survivor.output
  if victim == 0:
    in_processes(workdir, 2)
    test_faults.assert_equals_whole(workdir, two)


def test_a_signal_to_one_process_makes_all_save_the_same_step(tmp_path):
  workdir = tmp_path / 'run'
  started = killing.start_several(workdir, 2, [killing.LONG])
  killing.wait_for(lambda: test_faults.steps(workdir))
  started[1][0].terminate()
  ended = [killing.finish(one) for one in started]
  assert [one.code for one in ended] == [128 + signal.SIGTERM] * 2, ended
  [step] = {re.search(r'saved at step (\d+)', x.output)[1] for x in ended}
  assert int(step) == test_faults.steps(workdir)[-1]


def compare(place, differs_in):
  """Prints what two processes agree on; a mask differs in one of them."""
  multihost.start(multihost.placement(None, **place))
  index = place['process_index']
  mask = np.arange(1000) % 3 == 0
  if index == differs_in:
    mask[[500, 501]] = mask[[501, 500]]
  sharding = mesh_lib.replicated(mesh_lib.make_mesh(None))
  copy = jax.device_put(mask, jax.local_devices()[0])
  mask = jax.make_array_from_single_device_arrays((1000,), sharding, [copy])
  on_host = np.ones(3) + (index == differs_in)
  for tree in ({'same': np.ones(3), 'mask': mask}, {'host': on_host}):
    try:
      multihost.check_same(tree)
      print('the same')
    except multihost.LostError as error:
      print(error)
  print(multihost.largest(7 * index), multihost.total(index + 1.0))
  for message in ('bad', ''):
    try:
      multihost.in_first(refuse, message)
    except ValueError as error:
      print('refused:', error)
  print(multihost.together(lambda: index))


def refuse(message):
  if message:
    raise OSError(message)


def test_processes_find_a_mask_that_differs_and_share_errors():
  places = killing.placements(2)
  started = [killing.call(compare, place, 1) for place in places]
  for index, one in enumerate(started):
    first, second, *rest = lines(killing.finish(one))
    assert "['mask'] of process(es) [1] differs from that of" in first
    assert "['host'] of process(es) [1] differs from that of" in second
    assert rest == ['7 3.0', 'refused: process 0 of 2: bad', str(index)]
