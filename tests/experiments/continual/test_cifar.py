"""The config of the CIFAR tasks, from the bytes of the images on."""

import jax
import numpy as np
import pytest

from configs import cifar_tasks
from experiments.common import build
from experiments.common import loop
from experiments.common import run as run_lib
from experiments.continual import learner as learner_lib
from experiments.continual import plan as plan_lib
from experiments.continual import units as units_lib
from experiments.data import tasks
from tests import photographs


@pytest.mark.nightly
def test_a_residual_network_forgets_nothing_of_cifar(tmp_path):
  """The config, but for two tasks and few steps."""
  photographs.write_cifar(tmp_path, num_classes=10, num_train=150, num_test=20)
  photographs.write_cifar(
    tmp_path, num_classes=100, num_train=250, num_test=100
  )
  config = cifar_tasks.get_config('alpha=2,num_steps=2').to_dict()
  config.pop('experiment')
  config['seeds'] = (0,)
  config['tasks'].update(data_dir=str(tmp_path), num_tasks=2, num_validation=20)
  config['train'].update(batch_size=2, eval_batch_size=10)
  config['strategy'].update(densities=(0.3, 0.1), gamma=0.0)
  plan = build.call(plan_lib.make_plan, config)
  [settings] = plan.settings
  member = units_lib.Member(
    learner_lib.make_learner(tasks.read(settings.stream), settings),
    settings,
    plan.testing,
    0,
  )
  units = units_lib.make_units(member, plan.num_steps)
  outcome = loop.run(
    units, plan.schedule, run_lib.open_run(tmp_path / 'run', {}), keep=1
  )
  assert outcome.status == 'done'  # and so nothing was forgotten
  state = units[0].init(None)
  state, _ = units[0].train(state, 0, 2)
  state, _ = units[0].finish(state)
  before = jax.device_get(state)
  state, _ = units[1].train(units[1].init(state), 0, 2)
  owner = before.memory.pack.owner
  changed = 0
  for path, own in owner.items():
    module, name = path.rsplit('/', 1)
    old = before.train.params[module][name]
    new = np.asarray(state.train.params[module][name])
    np.testing.assert_array_equal(old[own == 1], new[own == 1])
    changed += np.sum(old != new)
  assert changed > 0.5 * sum(own.size for own in owner.values())
