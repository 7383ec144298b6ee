"""The config of the CIFAR tasks, from the bytes of the images on."""

import numpy as np
import pytest

from configs import cifar_tasks
from experiments.tasks import table
from tests import photographs
from tests.experiments.tasks.continual import small


@pytest.mark.nightly
def test_a_residual_network_forgets_nothing_of_cifar(tmp_path):
  """The config, but for two tasks and few steps."""
  photographs.write_cifar(tmp_path, num_classes=10, num_train=150, num_test=20)
  photographs.write_cifar(
    tmp_path, num_classes=100, num_train=250, num_test=100
  )
  config = cifar_tasks.get_config('alpha=2,num_steps=2').to_dict()
  config['powerprop']['alpha'] = config['powerprop'].pop('alphas')[0]
  config['seed'] = config.pop('seeds')[0]
  config['tasks'].update(data_dir=str(tmp_path), num_tasks=2, num_validation=20)
  config['train'].update(batch_size=2, eval_batch_size=10, num_devices=1)
  config['strategy'].update(densities=(0.3, 0.1), gamma=0.0)
  task = table.make_task(config)
  # The reports check that the logits of the first task stay the same.
  (_, before, _), (_, after, _) = small.run(task)
  owner = before.net_state.memory.pack.owner
  changed = 0
  for path, own in owner.items():
    module, name = path.rsplit('/', 1)
    old, new = (x.params[module][name] for x in (before, after))
    np.testing.assert_array_equal(old[own == 1], new[own == 1])
    changed += np.sum(old != new)
  assert changed > 0.5 * sum(own.size for own in owner.values())
