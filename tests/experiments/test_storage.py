"""Storage: compact runs have the results of masked ones, and less memory."""

import jax
import numpy as np
import pytest

from experiments import storage as storage_lib
from sparsity import masked
from tests.experiments import small

SIZE = 784 * 16  # of the large layer


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A run by each storage, with pruning levels."""
  return {
    storage: small.train(
      small.image(storage=storage, prune={'num_levels': 2, 'lowest': 0.1}),
      tmp_path_factory.mktemp(storage),
    )
    for storage in ('masked', 'compact')
  }


def test_a_compact_run_has_the_rows_of_a_masked_one(runs):
  for row, other in zip(runs['compact'].rows, runs['masked'].rows, strict=True):
    assert row.keys() == other.keys()
    for key in ('loss', 'accuracy', 'density', 'overlap', 'mask_change'):
      if key in row:
        assert row[key] == pytest.approx(other[key], rel=1e-3, abs=1e-4)


def test_the_device_holds_active_entries_only(runs):
  state = runs['compact'].state
  on_device = storage_lib.on_device(state)
  assert max(x.size for x in jax.tree.leaves(on_device)) == round(0.4 * SIZE)
  assert state.host_params['linear_0/w'].shape == (784, 16)
  assert isinstance(state.host_params['linear_0/w'], np.ndarray)
  for x in jax.tree.leaves(runs['compact'].task.state.host_params):
    assert x.strides == (0,) * x.ndim  # shapes alone, without memory


def test_products_that_skip_masked_weights_train_as_dense_ones(
  runs, monkeypatch, tmp_path
):
  monkeypatch.setattr(masked, 'MIN_SIZE', 1)
  # A config of its own, because a task is compiled once.
  config = small.image(prune={'num_levels': 2, 'lowest': 0.1, 'highest': 0.9})
  run = small.train(config, tmp_path)
  a, b = (x.state.params['linear_0']['w'] for x in (run, runs['masked']))
  assert not np.array_equal(a, b)  # other kernels, other roundings
  np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
