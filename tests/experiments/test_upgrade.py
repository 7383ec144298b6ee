"""A run folder of an earlier version: its config is read, it is not resumed."""

import pathlib
import tarfile

import pytest

from experiments import checkpoint
from experiments import rundir
from experiments.tasks import table

# tests/killing.py's run, with 10 steps; made by
#   tar -C FOLDER -czf tests/experiments/files/format-2.tar.gz run/config.json \
#     run/checkpoints
FILE = pathlib.Path(__file__).parent / 'files' / 'format-2.tar.gz'


def test_a_checkpoint_of_format_2_is_refused_by_its_version(tmp_path):
  with tarfile.open(FILE) as archive:
    archive.extractall(tmp_path, filter='data')
  task = table.make_task(rundir.read_config(tmp_path / 'run'))
  folder = tmp_path / 'run' / 'checkpoints'
  checkpoints = checkpoint.Checkpoints(folder, 2)
  message = r'step 10: .* expected format 4, got 2 of version 0.2.0'
  with pytest.raises(rundir.FolderError, match=message):
    checkpoints.restore(task.state)
  assert checkpoints.steps() == [10]
