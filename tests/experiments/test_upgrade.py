"""A checkpoint that an earlier version of this program saved still loads."""

import pathlib
import tarfile

import jax
import numpy as np

from experiments.common import checkpoint
import launch
import sparsity
from tests import killing

# Of tests/killing.py's run, at its tenth step; made by
#   tar -C RUN/checkpoints -czf tests/experiments/files/format-1.tar.gz 10
FILE = pathlib.Path(__file__).parent / 'files' / 'format-1.tar.gz'


def test_a_checkpoint_of_format_1_loads(tmp_path):
  with tarfile.open(FILE) as archive:
    archive.extractall(tmp_path, filter='data')
  command = launch.parse([*killing.SMALL, f'--workdir={tmp_path}'])
  experiment = launch._of_experiment('build', command.config)
  # Restoring compares every byte with the checksum that was saved.
  state, metadata = checkpoint.Checkpoints(tmp_path, None).restore(
    experiment.units[0].like()
  )
  assert metadata['global_step'] == 10
  assert state.step.tolist() == [10]
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
  sets = sparsity.active_sets(state.opt_state)
  assert int(sets.forward['linear_0']['w'].sum()) == round(0.1 * 784 * 8)
