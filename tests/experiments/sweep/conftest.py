"""A small config with sweeps, and a trainer that does nothing."""

import pytest

from experiments import trainer
from experiments.sweep import run
from tests.experiments.sweep import fakes


@pytest.fixture
def config(tmp_path, monkeypatch):
  """The file of a config whose runs are trained by `fakes.train`."""
  path = tmp_path / 'small.py'
  path.write_text(fakes.CONFIG)
  monkeypatch.setattr(run.initial, 'make_task', fakes.Task)
  monkeypatch.setattr(trainer, 'train', fakes.train)
  monkeypatch.setattr(fakes.Task, 'trained', [])
  return str(path)
