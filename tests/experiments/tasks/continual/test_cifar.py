"""The config of the CIFAR tasks, from the bytes of the images on."""

import jax
import numpy as np
import pytest

from configs import cifar_tasks
from experiments.tasks import table
from sparsity import select
from tests import photographs
from tests.experiments.tasks.continual import small


@pytest.mark.nightly
def test_a_residual_network_forgets_nothing_of_cifar(tmp_path):
  for num_classes, num_train, num_test in ((10, 150, 20), (100, 250, 100)):
    photographs.write_cifar(
      tmp_path, num_classes=num_classes, num_train=num_train, num_test=num_test
    )
  config = cifar_tasks.get_config('num_steps=2').to_dict()
  del config['seeds']
  config['seed'] = 0
  config['powerprop'] = {'alpha': 2.0, 'optimizer_in': 'phi'}
  config['tasks'].update(data_dir=str(tmp_path), num_tasks=2, num_validation=20)
  config['train'].update(batch_size=2, eval_batch_size=10)
  config['strategy'].update(densities=(0.3, 0.1), gamma=0.0)
  # Both tests pass: the second stage ends by checking the first task's.
  (_, first, _), (_, second, rows) = small.run(table.make_task(config))
  assert [row['tested'] for row in small.rows_of(rows, 'test')] == [1, 2]
  owner = first.net_state.memory.pack.owner
  old, new = (select.pick(x.params, owner) for x in (first, second))
  changed = sum(np.sum(old[path] != new[path]) for path in owner)
  for path, own in owner.items():
    np.testing.assert_array_equal(old[path][own == 1], new[path][own == 1])
  assert changed > 0.5 * sum(x.size for x in jax.tree.leaves(owner))
