"""The command, as a user gives it."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments import image_classification
from experiments.common import build
from experiments.common import checkpoint
from experiments.common import metrics
import launch

REPOSITORY = pathlib.Path(launch.__file__).parent
SMALL = [
  '--config.model.hidden=(32, 16)',
  '--config.train.num_steps=40',
  '--config.train.log_every=10',
  '--config.train.eval_every=20',
  '--config.train.checkpoint_every=20',
  '--config.prune.num_levels=3',
  '--config.prune.lowest=0.1',
]
DENSE = f'--config={REPOSITORY}/configs/mnist_dense.py:quick'
TOPKAST = f'--config={REPOSITORY}/configs/mnist_topkast.py:quick'
POWERPROP = f'--config={REPOSITORY}/configs/mnist_powerprop.py:quick'


def read_json(path):
  return json.loads(path.read_text())


def start(log, *arguments):
  with log.open('w') as file:
    return subprocess.Popen(
      [sys.executable, 'launch.py', *arguments],
      cwd=REPOSITORY,
      stdout=file,
      stderr=subprocess.STDOUT,
    )


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A folder of a run that is done."""
  workdir = tmp_path_factory.mktemp('finished') / 'run'
  assert launch.main([TOPKAST, f'--workdir={workdir}', *SMALL]) == 0
  return workdir


def test_run_folder_holds_everything(finished):
  assert {path.name for path in finished.iterdir()} == {
    'checkpoints', 'config.json', 'metrics.jsonl', 'plots', 'status.json',
    'summary.json', 'tensorboard',
  }  # fmt: skip
  assert read_json(finished / 'config.json')['method']['name'] == 'topkast'
  assert read_json(finished / 'status.json')['status'] == 'done'
  summary = read_json(finished / 'summary.json')
  assert [entry['alpha'] for entry in summary['test']] == [1.0, 2.0]
  assert summary['test'][0]['seeds'] == [0]
  assert summary['wall_time_s'] > 0
  assert summary['device']['platform'] == 'cpu'
  assert set(summary['versions']) >= {'jax', 'dm-haiku', 'optax', 'python'}
  assert len(summary['pruned']) == 4  # of three levels two are below its own


def test_plots_are_pictures(finished):
  names = {path.name for path in (finished / 'plots').iterdir()}
  assert names == {
    'histograms.png', 'overlap.png', 'pruning.png', 'training.png'
  }  # fmt: skip
  for path in (finished / 'plots').iterdir():
    assert path.read_bytes().startswith(b'\x89PNG')
    assert path.stat().st_size > 10_000


def test_again_shows_the_results_and_changes_nothing(finished, capsys):
  before = (finished / 'metrics.jsonl').read_bytes()
  assert launch.main([TOPKAST, f'--workdir={finished}', *SMALL]) == 0
  assert (finished / 'metrics.jsonl').read_bytes() == before
  assert 'as trained' in capsys.readouterr().out


def test_another_config_in_the_folder_is_refused(finished, capsys):
  before = {p: p.stat().st_mtime_ns for p in finished.rglob('*')}
  code = launch.main(
    [TOPKAST, f'--workdir={finished}', *SMALL, '--config.train.batch_size=30']
  )
  assert code == launch.USER_ERROR
  assert 'train.batch_size: 60 there, 30 now' in capsys.readouterr().err
  assert {p: p.stat().st_mtime_ns for p in finished.rglob('*')} == before


def test_evaluation_alone_finds_what_training_did(finished, capsys):
  before = {p: p.stat().st_mtime_ns for p in finished.rglob('*')}
  arguments = [TOPKAST, f'--workdir={finished}', *SMALL, '--eval_only']
  assert launch.main(arguments) == 0
  assert 'as trained' in capsys.readouterr().out
  evaluation = finished / 'evaluation.json'
  summary = read_json(finished / 'summary.json')
  assert read_json(evaluation) == {k: summary[k] for k in ('test', 'pruned')}
  evaluation.unlink()
  for path, then in before.items():
    assert path.stat().st_mtime_ns == then


def test_evaluation_without_a_run_is_refused(tmp_path, capsys):
  arguments = [TOPKAST, f'--workdir={tmp_path / "none"}', *SMALL, '--eval_only']
  assert launch.main(arguments) == launch.USER_ERROR
  assert 'train first' in capsys.readouterr().err
  assert not (tmp_path / 'none').exists()


def test_dry_run_needs_no_data_and_lowers_the_step(capsys):
  arguments = [TOPKAST, '--dry_run', '--config.data.data_dir=/nowhere']
  assert launch.main(arguments) == 0
  output = capsys.readouterr().out
  assert '266,610' in output
  assert 'lowers for cpu, cuda, tpu' in output
  assert 'training:  1.597e+06 FLOPs' in output


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([f'{DENSE[:-5]}quik'], "expected variant '' or 'quick', got 'quik'"),
    (['--config=configs/nothing.py'], 'expected a config file, one of'),
    ([DENSE, '--config.train.num_stps=3'], 'Did you mean "num_steps"'),
    ([DENSE, '--config.trian.num_steps=3'], 'Did you mean "train"'),
    ([DENSE, '--config.train.num_steps=many'], 'num_steps=many'),
    ([DENSE, '--config.train.num_steps=1.5'], 'num_steps=1.5'),
    ([DENSE, '--config.train.num_steps=0'], 'num_steps: expected >= 1, got 0'),
    ([DENSE, '--config.optimizer.name=sdg'], "did you mean 'sgd'"),
    ([DENSE, '--config.experiment=images'], 'image_classification'),
    ([DENSE, '--config.data.name=imagenett'], "did you mean 'imagenet'"),
    ([DENSE, 'more'], 'expected flags only, got more'),
    ([DENSE, '--sweep=x'], 'sweep'),
    ([TOPKAST, '--config.method.forward_density=0'], 'forward_density in (0,'),
    ([TOPKAST, '--config.method.backward_density=1.2'], 'got 1.2'),
    ([TOPKAST, '--config.method.forward_density=0.5'], 'forward_density=0.5'),
    ([TOPKAST, '--config.method.exploration=none'], "got 'none'"),
    ([POWERPROP, '--config.powerprop.alphas=(0.9,)'], 'alpha >= 1, got [0.9]'),
    ([POWERPROP, '--config.prune.lowest=1e-4'], 'linear_2/w with 1000 weights'),
  ],
)
def test_mistakes_are_one_message_and_leave_nothing(
  tmp_path, capsys, arguments, message
):
  workdir = tmp_path / 'run'
  code = launch.main([*arguments, f'--workdir={workdir}'])
  error = capsys.readouterr().err
  assert code == launch.USER_ERROR
  assert message in error
  assert 'Traceback' not in error
  assert not workdir.exists()


def test_a_missing_config_is_named(capsys):
  with pytest.raises(SystemExit) as exit_:
    launch.main(['--workdir=x'])
  assert exit_.value.code == launch.USER_ERROR
  assert '--config' in capsys.readouterr().err


def test_a_missing_folder_is_named(capsys):
  assert launch.main([DENSE]) == launch.USER_ERROR
  assert '--workdir=DIR' in capsys.readouterr().err


def test_diverging_stops_and_keeps_the_last_checkpoint(tmp_path, capsys):
  workdir = tmp_path / 'run'
  code = launch.main(
    [
      POWERPROP,
      f'--workdir={workdir}',
      *SMALL,
      '--config.powerprop.alphas=(5.0,)',
      '--config.optimizer.learning_rate=3.0',
      '--config.train.checkpoint_every=10',
    ]
  )
  assert code == launch.DIVERGED
  assert 'smaller learning rate' in capsys.readouterr().err
  status = read_json(workdir / 'status.json')
  assert status['status'] == 'diverged'
  assert 'loss is nan' in status['message']
  assert not (workdir / 'summary.json').exists()


@pytest.mark.slow
def test_stopped_and_started_again_equals_uninterrupted(tmp_path):
  flags = [*SMALL, '--config.train.num_steps=1500', TOPKAST]
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  log = tmp_path / 'log'
  for number in (signal.SIGTERM, signal.SIGINT):
    before = len(rows_of(parts))
    process = start(log, *flags, f'--workdir={parts}')
    wait_for(lambda: len(rows_of(parts)) > before + 20, process, log)  # noqa: B023
    process.send_signal(number)
    assert process.wait(timeout=120) == 128 + number
    output = log.read_text()
    assert 'The same command goes on from there' in output
    assert 'Traceback' not in output
    assert read_json(parts / 'status.json')['status'] == 'interrupted'
    assert before < len(rows_of(parts)) < 300
  for workdir in (parts, whole):
    assert start(log, *flags, f'--workdir={workdir}').wait(300) == 0
  assert rows_of(whole) == rows_of(parts)
  states = [last_state(workdir) for workdir in (whole, parts)]
  for a, b in zip(*states, strict=True):
    np.testing.assert_array_equal(a, b)


def rows_of(workdir):
  file = workdir / metrics.FILE
  return file.read_bytes().splitlines() if file.exists() else []


def wait_for(condition, process, log, seconds=120):
  deadline = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None, log.read_text()
    assert time.monotonic() < deadline
    time.sleep(0.05)


def last_state(workdir):
  """Returns the leaves of the newest checkpoint."""
  config = read_json(workdir / 'config.json')
  config.pop('experiment')
  builder = image_classification.build
  unit = build.call(builder, config).units[0]
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints', 2)
  state, metadata = checkpoints.restore(unit.init(None))
  assert metadata['global_step'] == 3000
  return [np.asarray(x) for x in jax.tree.leaves(state)]


def test_help_says_how_to_use_it():
  result = subprocess.run(
    [sys.executable, 'launch.py', '--help'],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    env={**os.environ, 'COLUMNS': '100'},
    check=True,
  )
  assert '--config=FILE[:VARIANT] --workdir=DIR' in result.stdout
