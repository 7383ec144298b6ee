"""A run folder that an earlier version of this program made is still read."""

import pathlib
import tarfile

import jax
import numpy as np

from experiments import checkpoint
from experiments import rundir
from experiments.tasks import table
import sparsity

# tests/killing.py's run, with 10 steps; made by
#   tar -C FOLDER -czf tests/experiments/files/format-2.tar.gz run/config.json \
#     run/checkpoints
FILE = pathlib.Path(__file__).parent / 'files' / 'format-2.tar.gz'


def test_a_run_folder_of_format_2_is_read(tmp_path):
  with tarfile.open(FILE) as archive:
    archive.extractall(tmp_path, filter='data')
  task = table.make_task(rundir.read_config(tmp_path / 'run'))
  # Restoring compares every byte with the saved checksum.
  checkpoints = checkpoint.Checkpoints(tmp_path / 'run' / 'checkpoints', None)
  state, metadata = checkpoints.restore(task.state)
  assert metadata['step'] == state.step == 10
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
  sets = sparsity.active_sets(state.opt_state)
  num_active = sum(int(x['w'].sum()) for x in sets.forward.values())
  assert num_active == round(0.1 * (784 * 8 + 8 * 10))
