"""Runs that are killed, starved or misled: nothing is lost, nothing differs.

Processes are real and get SIGKILL; see tests/killing.py.
"""

import json
import random
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments.common import checkpoint
from experiments.common import lock
from experiments.common import metrics
from experiments.data import order
import launch
from tests import killing

NUM_STEPS = 40
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module', autouse=True)
def server(tmp_path_factory):
  killing.serve(tmp_path_factory.mktemp('cache'))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run that was left alone: its folder, and how it ended."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  ended = killing.run(workdir)
  assert ended.code == 0, ended.output
  return workdir, ended


def steps(workdir):
  folder = workdir / 'checkpoints'
  found = [p.name for p in folder.iterdir()] if folder.exists() else []
  return sorted(int(name) for name in found if name.isdigit())


def last_state(workdir):
  """Returns every array of the last checkpoint, by its path."""
  path = workdir / 'checkpoints' / str(NUM_STEPS) / 'default'
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
    shapes = checkpointer.metadata(path).item_metadata.tree
    as_numpy = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes
    )
    tree = checkpointer.restore(
      path, args=ocp.args.PyTreeRestore(restore_args=as_numpy)
    )
  flat = {}

  def collect(prefix, value):
    if isinstance(value, (dict, list)):
      items = value.items() if isinstance(value, dict) else enumerate(value)
      for key, item in items:
        collect(f'{prefix}/{key}', item)
    elif value is not None:
      flat[prefix] = np.asarray(value)

  collect('', tree)
  return flat


def assert_equals_whole(workdir, whole):
  name = metrics.FILE
  assert (workdir / name).read_bytes() == (whole / name).read_bytes()
  assert steps(workdir) == steps(whole)
  a, b = last_state(workdir), last_state(whole)
  assert a.keys() == b.keys()
  for path in a:
    assert a[path].dtype == b[path].dtype
    assert a[path].tobytes() == b[path].tobytes(), path


def test_the_state_that_is_compared_has_everything(whole):
  found = last_state(whole[0])
  shapes = [x.shape for x in found.values()]
  assert shapes.count((1, 784, 8)) >= 4  # phi, momentum, sets A and B
  assert any(x.dtype == bool and 0 < x.mean() < 1 for x in found.values())


def plan_of(seed, counts):
  """Returns where a run is killed, and in words."""
  rng = random.Random(seed)
  kind = ('file', 'save', 'time')[seed % 3]
  if kind == 'file':
    return killing.Plan(kill_at_file=rng.randint(1, counts['file']))
  if kind == 'save':
    return killing.Plan(kill_at_save=rng.randint(1, counts['save']))
  return killing.Plan(kill_after=rng.uniform(0, 0.8))


@pytest.mark.parametrize('seed', range(20))
def test_killed_anywhere_and_started_again_equals_left_alone(
  tmp_path, whole, seed
):
  workdir = tmp_path / 'run'
  plan = plan_of(seed, whole[1].counts)
  killed = killing.run(workdir, plan=plan)
  assert killed.code in (-signal.SIGKILL, 0), killed.output
  if plan.kill_after is None:
    assert killed.code == -signal.SIGKILL, plan
  again = killing.run(workdir)
  assert again.code == 0, again.output
  assert 'Traceback' not in killed.output + again.output
  assert_equals_whole(workdir, whole[0])
  assert not (workdir / lock.FILE).exists()


def test_a_second_run_in_the_folder_is_refused(tmp_path, whole):
  workdir = tmp_path / 'run'
  first = killing.start(workdir, ['--config.train.num_steps=100000'])
  deadline = time.monotonic() + 60
  while not (workdir / metrics.FILE).exists():
    assert time.monotonic() < deadline
    time.sleep(0.02)
  second = killing.run(workdir, ['--config.train.num_steps=100000'])
  assert second.code == launch.USER_ERROR
  assert f'process {first[0].pid} on' in second.output
  assert first[0].is_alive()
  first[0].terminate()  # SIGTERM
  ended = killing.finish(first)
  assert ended.code == 128 + signal.SIGTERM
  assert 'The same command goes on from there' in ended.output
  assert not (workdir / lock.FILE).exists()


@pytest.mark.parametrize('limit', ['metrics', 'save'])
def test_a_full_disk_stops_the_run_and_leaves_what_is_saved(
  tmp_path, whole, limit
):
  workdir = tmp_path / 'run'
  # The third status is written after the second checkpoint.
  plan = killing.Plan(limit_at_status=3, limit=limit)
  ended = killing.run(workdir, plan=plan)
  assert ended.code == launch.MACHINE, ended.output
  assert 'Stopped: ' in ended.output
  assert 'File too large' in ended.output or limit == 'save'
  assert 'Traceback' not in ended.output
  assert steps(workdir) == [10, 20]
  again = killing.run(workdir)
  assert again.code == 0, again.output
  assert_equals_whole(workdir, whole[0])


@pytest.mark.parametrize(
  'plan',
  [
    killing.Plan(
      environment={'TZ': 'Asia/Kathmandu', 'LC_ALL': 'POSIX'}, is_ascii=True
    ),
    killing.Plan(clock=-1e8),
    killing.Plan(clock=1e9, environment={'TZ': 'America/St_Johns'}),
  ],
)
def test_clock_time_zone_and_locale_change_nothing(tmp_path, whole, plan):
  workdir = tmp_path / 'run'
  killing.run(workdir, plan=killing.Plan(kill_at_save=20))
  ended = killing.run(workdir, plan=plan)
  assert ended.code == 0, ended.output
  assert_equals_whole(workdir, whole[0])


BROKEN = 7  # an image that is NaN


def test_what_is_not_finite_stops_the_run(tmp_path):
  workdir = tmp_path / 'run'
  ended = killing.run(workdir, plan=killing.Plan(broken=BROKEN))
  assert ended.code == launch.DIVERGED
  assert 'the loss is nan' in ended.output


def test_what_is_not_finite_is_skipped_and_counted_if_configured(tmp_path):
  workdir = tmp_path / 'run'
  skip = ['--config.train.on_not_finite=skip']
  ended = killing.run(workdir, skip, killing.Plan(broken=BROKEN))
  assert ended.code == 0, ended.output
  rows = [row for row in metrics.read(workdir) if row['split'] == 'train']
  chosen = order.batch_indices(0, 0, NUM_STEPS, 20, 600)
  expected = (chosen == BROKEN).any(1).reshape(-1, 5).sum(1)
  assert [row['skipped'] for row in rows] == expected.tolist()
  assert 1 <= expected.sum() <= 2
  assert all(np.isfinite(row['loss']) for row in rows)


def damage(folder, how):
  """Damages the newest data file of a checkpoint."""
  file = max(folder.glob('default/**/*'), key=lambda p: p.stat().st_size)
  content = bytearray(file.read_bytes())
  if how == 'truncated':
    content = content[: len(content) // 2]
  elif how == 'flipped':
    content[len(content) // 2] ^= 4
  file.write_bytes(bytes(content))


@pytest.mark.parametrize('how', ['truncated', 'flipped', 'other version'])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
  tmp_path, whole, how
):
  workdir = tmp_path / 'run'
  killing.run(workdir, plan=killing.Plan(limit_at_status=3, limit='metrics'))
  newest = workdir / 'checkpoints' / '20'
  if how == 'other version':
    path = newest / '_CHECKPOINT_METADATA'
    text = path.read_text()
    old = json.dumps({'format': checkpoint.FORMAT})[1:-1]
    assert old in text
    path.write_text(text.replace(old, '"format": 999'))
  else:
    damage(newest, how)
  ended = killing.run(workdir)
  assert ended.code == 0, ended.output
  assert 'Checkpoint 20 cannot be read' in ended.output
  assert (workdir / 'checkpoints' / 'unreadable-20').is_dir()
  assert_equals_whole(workdir, whole[0])
