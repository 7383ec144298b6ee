"""Damaged records, as the command reports them."""

import json

from experiments import metrics
import launch

CONFIG = """
import ml_collections
from configs import imagenet_resnet50


def get_config():
  config = imagenet_resnet50.get_config('dense,batch_size=4')
  config.model = dict(name='lenet', hidden=(2,))
  config.prune.output_layer = 'linear_1/w'
  config.data.update(image_size=16, resize=18, num_workers=0)
  config.optimizer.schedule = dict(name='constant', warmup_steps=0)
  config.optimizer.learning_rate = 1e-3
  config.train.update(
    eval_batch_size=2, num_devices=1, num_steps=6, log_every=2, eval_every=6,
    checkpoint_every=2,
  )
  return config
"""


def run(tmp_path, damaged_dir, *more):
  file = tmp_path / 'config.py'
  file.write_text(CONFIG)
  flags = [f'--config={file}', f'--config.data.data_dir={damaged_dir}', *more]
  return launch.main([*flags, f'--workdir={tmp_path / "run"}'])


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
  skip = '--config.data.on_bad_record=skip'
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  for folder in (whole, parts):
    folder.mkdir()
    assert run(folder, damaged_dir, skip) == 0
  rows = [r for r in metrics.read(whole / 'run') if r['split'] == 'train']
  # Each epoch of 3 steps meets both, and once more where one replaces another.
  assert sum(row['quarantined'] for row in rows) >= 4
  forget_after(parts / 'run', 4)
  assert run(parts, damaged_dir, skip) == 0
  files = [folder / 'run' / metrics.FILE for folder in (whole, parts)]
  assert files[0].read_bytes() == files[1].read_bytes()


def forget_after(workdir, step):
  """Takes a run back to the checkpoint of a step."""
  for folder in (workdir / 'checkpoints').iterdir():
    if folder.name.isdigit() and int(folder.name) > step:
      folder.rename(workdir / f'later-{folder.name}')
