"""Several processes on loopback, each with one device."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments.common import distributed
from experiments.common import metrics
from experiments.common import processes
import launch
from tests import killing
from tests import test_faults

REPOSITORY = pathlib.Path(launch.__file__).parent
LONG = '--config.train.num_steps=100000'
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module', autouse=True)
def server(tmp_path_factory):
  killing.serve(tmp_path_factory.mktemp('cache'))


def on_devices(workdir, num):
  """A run of one process with several devices."""
  flag = f'--xla_force_host_platform_device_count={num}'
  plan = killing.Plan(environment={'XLA_FLAGS': flag})
  ended = killing.run(workdir, [f'--config.train.num_devices={num}'], plan)
  assert ended.code == 0, ended.output
  return workdir


def in_processes(workdir, num):
  started = killing.start_several(workdir, num)
  ended = [killing.finish(one) for one in started]
  assert [one.code for one in ended] == [0] * num, ended
  return workdir, ended


def lines(ended):
  """What a process printed, but for what Gloo says when it begins."""
  found = ended.output.splitlines()
  return [line for line in found if not line.startswith('[Gloo]')]


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """A run of two processes."""
  return in_processes(tmp_path_factory.mktemp('two') / 'run', 2)[0]


def assert_close(a, b):
  """Two runs are the same to rounding, and their masks bit for bit."""
  one, other = (test_faults.last_state(folder) for folder in (a, b))
  assert one.keys() == other.keys()
  assert sum(x.dtype == bool for x in one.values()) >= 2
  for path, x in one.items():
    if np.issubdtype(x.dtype, np.floating):
      np.testing.assert_allclose(x, other[path], rtol=1e-4, atol=1e-6)
    else:
      np.testing.assert_array_equal(x, other[path], err_msg=path)
  rows, others = metrics.read(a), metrics.read(b)
  assert [row['split'] for row in rows] == [row['split'] for row in others]
  losses = [[r['loss'] for r in x if 'loss' in r] for x in (rows, others)]
  np.testing.assert_allclose(*losses, rtol=1e-4)


def test_two_processes_are_as_one_with_two_devices(tmp_path, two):
  assert_close(two, on_devices(tmp_path / 'run', 2))


def test_four_processes_are_as_one_with_four_devices(tmp_path):
  four, ended = in_processes(tmp_path / 'four' / 'run', 4)
  assert 'as trained' in ended[0].output
  assert not any(lines(one) for one in ended[1:])  # one writes, and prints
  assert_close(four, on_devices(tmp_path / 'one' / 'run', 4))


def wait_for_checkpoint(workdir, num=1):
  deadline = time.monotonic() + 60
  while len(test_faults.steps(workdir)) < num:
    assert time.monotonic() < deadline
    time.sleep(0.01)


@pytest.mark.parametrize('victim', [0, 1])
def test_the_other_ends_soon_when_one_is_killed_and_all_goes_on(
  tmp_path, two, victim
):
  workdir = tmp_path / 'run'
  started = killing.start_several(workdir, 2)
  wait_for_checkpoint(workdir)
  started[victim][0].kill()
  start = time.monotonic()
  survivor = killing.finish(started[1 - victim])
  assert time.monotonic() - start < 60
  killing.finish(started[victim])
  assert survivor.code == launch.MACHINE, survivor
  assert 'another process' in survivor.output
  assert 'Traceback' not in survivor.output
  in_processes(workdir, 2)
  test_faults.assert_equals_whole(workdir, two)


def test_a_signal_to_one_process_makes_all_save_the_same_step(tmp_path):
  workdir = tmp_path / 'run'
  started = killing.start_several(workdir, 2, [LONG])
  wait_for_checkpoint(workdir)
  started[1][0].terminate()
  ended = [killing.finish(one) for one in started]
  assert [one.code for one in ended] == [128 + signal.SIGTERM] * 2, ended
  [step] = {re.search(r'saved at step (\d+)', x.output)[1] for x in ended}
  assert int(step) == test_faults.steps(workdir)[-1]


def flip(flags, at_process):
  """Checks a mask of which one process has another copy."""
  place = dict(flag[2:].split('=') for flag in flags)
  index = int(place['process_index'])
  processes.start(
    processes.Placement(
      place['coordinator'], int(place['process_count']), index, None
    )
  )
  mask = np.arange(1000) % 3 == 0
  if index == at_process:
    mask[[500, 501]] = mask[[501, 500]]
  sharding = distributed.replicated(distributed.make_mesh(None))
  copy = jax.device_put(mask, jax.local_devices()[0])
  mask = jax.make_array_from_single_device_arrays((1000,), sharding, [copy])
  try:
    processes.check_same({'params': np.ones(3), 'mask': mask})
    print('the same')
  except processes.LostError as error:
    print(error)
  print(processes.largest(7 * index), processes.total(index + 1.0))
  for message in ('bad', ''):
    try:
      processes.in_first(refuse, message)
    except ValueError as error:
      print('refused:', error)
  print(processes.together(lambda: index))


def refuse(message):
  if message:
    raise OSError(message)


@pytest.mark.parametrize('at_process', [None, 0, 1])
def test_a_mask_that_differs_is_found_in_every_process(at_process):
  started = [
    killing.call(flip, flags, at_process) for flags in killing.together(2)
  ]
  for index, one in enumerate(started):
    ended = killing.finish(one)
    first, *rest = lines(ended)
    if at_process is None:
      assert first == 'the same'
    else:
      assert "['mask'] of process(es) [1] is not that of process 0" in first
    assert rest[0] == '7 3.0'
    assert rest[1] == 'refused: process 0 of 2: bad'
    assert rest[2:] == [str(index)]


def test_the_command_starts_several_processes(tmp_path, two):
  workdir = tmp_path / 'run'
  result = subprocess.run(
    [
      sys.executable, 'launch.py', *killing.SMALL, f'--workdir={workdir}',
      '--processes=2', '--config.train.num_devices=2',
      '--config.train.num_steps=5',
    ],
    cwd=REPOSITORY,
    env={**os.environ, 'XLA_FLAGS': ''},
    capture_output=True,
    text=True,
    timeout=200,
    check=False,
  )  # fmt: skip
  assert result.returncode == 0, result.stderr
  assert result.stdout.count('as trained') == 1
  assert (workdir / 'summary.json').exists()


def test_all_devices_have_to_be_used(tmp_path):
  started = [
    killing.start(tmp_path / 'run', flags) for flags in killing.together(2)
  ]
  for one in started:
    ended = killing.finish(one)
    assert ended.code == launch.USER_ERROR
    assert 'expected num_devices=2 or None' in ended.output
  assert not (tmp_path / 'run').exists()
