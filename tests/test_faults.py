"""Runs that are killed, starved or misled: nothing is lost, nothing differs.

Processes are real and get SIGKILL; see tests/killing.py.
"""

import random
import shutil
import signal

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments import checkpoint
from experiments import metrics
from experiments import rundir
import launch
from tests import killing


@pytest.fixture(scope='module', autouse=True)
def server(tmp_path_factory):
  with killing.server(tmp_path_factory.mktemp('cache')):
    yield


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The folder of an undisturbed run, and how it ended."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  ended = killing.run(workdir)
  assert ended.code == 0, ended.output
  return workdir, ended


@pytest.fixture(scope='module', params=['metrics', 'save'])
def stopped(request, tmp_path_factory):
  """The folder of a run whose disk is full, and how it ended."""
  workdir = tmp_path_factory.mktemp('stopped') / 'run'
  # The third status is written after the second checkpoint.
  plan = killing.Plan(limit_at_status=3, limit=request.param)
  return workdir, killing.run(workdir, plan=plan)


@pytest.fixture
def copy(stopped, tmp_path):
  """A copy of that folder; its newest checkpoint is of step 20."""
  return shutil.copytree(stopped[0], tmp_path / 'run')


def steps(workdir):
  return checkpoint.Checkpoints(workdir / 'checkpoints', None).steps()


def last_state(workdir) -> dict[str, np.ndarray]:
  """Returns the arrays of the last checkpoint by path."""
  path = workdir / 'checkpoints' / str(steps(workdir)[-1]) / 'default'
  handler = ocp.PyTreeCheckpointHandler()
  as_numpy = jax.tree.map(
    lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
    handler.metadata(path).tree,
  )
  args = ocp.args.PyTreeRestore(restore_args=as_numpy)
  return handler.restore(path, args=args)


def assert_equals_whole(workdir, whole):
  name = metrics.FILE
  assert (workdir / name).read_bytes() == (whole / name).read_bytes()
  assert steps(workdir) == steps(whole)
  a, b = last_state(workdir), last_state(whole)
  assert a.keys() == b.keys()
  shapes = [x.shape for x in a.values()]
  assert shapes.count((784, 8)) >= 4  # phi, momentum, sets A and B
  for path in a:
    assert a[path].dtype == b[path].dtype
    assert a[path].tobytes() == b[path].tobytes(), path


def make_plan(seed, counts):
  """Returns a random moment to kill a run at."""
  rng = random.Random(seed)
  if seed % 2:
    return killing.Plan(kill_at_save=rng.randint(1, counts['save']))
  return killing.Plan(kill_at_file=rng.randint(1, counts['file']))


NIGHTLY = [pytest.param(i, marks=pytest.mark.nightly) for i in range(4, 20)]


@pytest.mark.parametrize('seed', [*range(4), *NIGHTLY])
def test_killed_anywhere_and_started_again_equals_undisturbed(
  tmp_path, whole, seed
):
  workdir = tmp_path / 'run'
  plan = make_plan(seed, whole[1].counts)
  killed = killing.run(workdir, plan=plan)
  assert killed.code == -signal.SIGKILL, (plan, killed.output)
  again = killing.run(workdir)
  assert again.code == 0, again.output
  assert 'Traceback' not in killed.output + again.output
  assert_equals_whole(workdir, whole[0])
  assert not rundir.is_locked(workdir)


def test_a_second_run_in_the_folder_is_refused(tmp_path):
  workdir = tmp_path / 'run'
  first = killing.start(workdir, [killing.LONG])
  killing.wait_for(lambda: (workdir / metrics.FILE).exists())
  second = killing.run(workdir, [killing.LONG])
  assert second.code == launch.USER_ERROR
  assert f'process {first[0].pid} on' in second.output
  assert first[0].is_alive()
  first[0].terminate()
  ended = killing.finish(first)
  assert ended.code == 128 + signal.SIGTERM
  assert 'The same command goes on from there' in ended.output
  assert not rundir.is_locked(workdir)


def test_a_full_disk_stops_the_run_which_goes_on(stopped, copy, whole):
  ended = stopped[1]
  assert ended.code == launch.MACHINE, ended.output
  assert 'Stopped: ' in ended.output
  assert steps(copy) == [10, 20]
  again = killing.run(copy)
  assert again.code == 0, again.output
  assert_equals_whole(copy, whole[0])


@pytest.mark.parametrize('stopped', ['metrics'], indirect=True)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
  stopped, copy, whole
):
  assert 'Traceback' not in stopped[1].output
  files = (copy / 'checkpoints' / '20' / 'default').rglob('*')
  path = max(files, key=lambda path: path.stat().st_size)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 4
  path.write_bytes(content)
  ended = killing.run(copy)
  assert ended.code == 0, ended.output
  assert 'checkpoints/20 cannot be read' in ended.output
  assert (copy / 'checkpoints' / 'unreadable-20').is_dir()
  assert_equals_whole(copy, whole[0])
