"""Damaged records, as the command reports them."""

import json

from experiments import metrics
import launch
from tests.experiments import small


def run(folder, damaged_dir, on_bad_record='stop'):
  data = {
    'name': 'imagenet', 'data_dir': str(damaged_dir), 'num_validation': 0,
    'image_size': 16, 'resize': 18, 'on_bad_record': on_bad_record,
    'num_workers': 0,
  }  # fmt: skip
  train = {
    'batch_size': 4, 'eval_batch_size': 2, 'num_steps': 6, 'log_every': 2,
    'eval_every': 6, 'checkpoint_every': 2,
  }  # fmt: skip
  config = small.image('dense', model={'hidden': (2,)}, train=train)
  config['optimizer']['learning_rate'] = 1e-3
  config |= {'data': data, 'seeds': [config.pop('seed')]}
  config['powerprop'] = {'alphas': [1.0], 'optimizer_in': 'theta'}
  flag = small.config_flag(folder, config)
  return launch.main([flag, f'--workdir={folder / "run"}'])


def test_a_damaged_record_ends_the_run_with_its_name(
  tmp_path, damaged_dir, capsys
):
  code = run(tmp_path, damaged_dir)
  assert code == launch.USER_ERROR
  error = capsys.readouterr().err
  assert 'Stopped: expected a record that decodes, got ' in error
  assert '.array_record-0000' in error
  assert "set on_bad_record to 'skip'" in error
  assert 'Traceback' not in error
  status = json.loads((tmp_path / 'run' / 'status.json').read_text())
  assert status['status'] == 'failed'
  assert 'DataError: expected a record that decodes' in status['message']


def test_skipped_records_are_counted_alike_after_a_resumption(
  tmp_path, damaged_dir
):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  for folder in (whole, parts):
    folder.mkdir()
    assert run(folder, damaged_dir, 'skip') == 0
  rows = [r for r in metrics.read(whole / 'run') if r['split'] == 'train']
  # Each epoch of 3 steps meets both, and once more where one replaces another.
  assert sum(row['quarantined'] for row in rows) >= 4
  forget_after(parts / 'run', 4)
  assert run(parts, damaged_dir, 'skip') == 0
  files = [folder / 'run' / metrics.FILE for folder in (whole, parts)]
  assert files[0].read_bytes() == files[1].read_bytes()


def forget_after(workdir, step):
  """Takes a run back to the checkpoint of a step."""
  for folder in (workdir / 'checkpoints').iterdir():
    if folder.name.isdigit() and int(folder.name) > step:
      folder.rename(workdir / f'later-{folder.name}')
