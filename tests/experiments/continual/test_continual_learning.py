"""The experiment, from config to report, on MNIST with a small network."""

import functools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import continual_learning
from experiments.common import build
from experiments.common import classification
from experiments.common import loop
from experiments.common import metrics
from experiments.common import run as run_lib
from experiments.continual import learner as learner_lib
from experiments.continual import plan as plan_lib
from experiments.continual import report
from experiments.continual import state as state_lib
from experiments.continual import training
from experiments.continual import units as units_lib
from experiments.data import tasks as tasks_lib
from experiments.models import lenet
import launch
import powerprop
from powerprop import packnet
import sparsity
from tests.experiments.continual import small


@functools.cache
def some_mnist():
  """Every tenth example."""
  whole = tasks_lib.permuted_mnist(num_tasks=1, seed=0, data_dir=None).load()
  return whole._replace(
    **{
      name: jax.tree.map(lambda x: x[::10], getattr(whole, name))
      for name in tasks_lib.SPLITS
    }
  )


_MADE = {}


def make_units(**options):
  """Returns the units of a config on every tenth example of MNIST."""
  key = repr(options)
  if key not in _MADE:  # what one test compiles others use
    _MADE[key] = _make_units(**options)
  return _MADE[key]


def _make_units(check=True, **options):
  plan = build.call(plan_lib.make_plan, small.make_sections(**options))
  [settings] = plan.settings
  stream = settings.stream._replace(load=some_mnist)
  member = units_lib.Member(
    learner_lib.make_learner(tasks_lib.read(stream), settings),
    settings,
    units_lib.Testing(1, check),
    0,
  )
  return plan, units_lib.make_units(member, plan.num_steps)


def run(plan, units, workdir):
  directory = run_lib.open_run(workdir, {})
  return loop.run(units, plan.schedule, directory, keep=plan.keep)


def test_training_equals_a_loop_written_by_hand():
  alpha = 2.0
  strategy = {'gamma': 0.5, 'densities': (0.5, 0.2)}
  plan, units = make_units(powerprop={'alphas': (alpha,)}, strategy=strategy)
  state = None
  for unit in units[:2]:
    state, _ = unit.train(unit.init(state), 0, 20)
    state, _ = unit.finish(state)

  data, stream = some_mnist(), plan.settings[0].stream
  network = lenet.lenet(hidden=(16, 12), num_classes=30)
  tx = packnet.freeze(powerprop.powerprop(optax.sgd(0.1), alpha))

  def draw(task):
    key = jax.random.fold_in(jax.random.key(0), task)
    weights, _ = network.init(key, np.zeros((1, 28, 28, 1), np.float32), True)
    return powerprop.from_weights(weights, alpha)

  def logits_of(weights, images, task):
    logits, _ = network.apply(weights, {}, None, images, True)
    return logits[:, 10 * task : 10 * (task + 1)]

  params = draw(0)
  pack = packnet.init(
    params,
    num_tasks=3,
    is_head=sparsity.matching('linear_2'),
    per_task_heads=False,
  )
  for task in range(2):
    [order] = stream.tasks[task].pixels.source
    images = {
      name: getattr(data, name).inputs.reshape(-1, 784)[:, order]
      for name in ('train', 'validation')
    }
    params = packnet.start_task(params, pack, draw(task))
    sets = packnet.training_sets(params, pack)
    columns = np.arange(30) // 10 == task
    sets.backward['linear_2'] = {
      'w': np.broadcast_to(columns, (12, 30)), 'b': columns,
    }  # fmt: skip
    opt_state = packnet.with_sets(tx.init(params), sets)

    @jax.jit
    def step(params, opt_state, images, labels, task=task):
      def loss(weights):
        return classification.cross_entropy(
          logits_of(weights, images, task), labels
        )

      slopes = jax.grad(loss)(powerprop.to_weights(params, alpha))
      updates, opt_state = tx.update(slopes, opt_state, params)
      return optax.apply_updates(params, updates), opt_state

    seed = training.order_seed(0, task, 0)
    chosen = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(
      len(data.train.labels)
    )
    for i in range(20):
      rows = chosen[60 * i : 60 * (i + 1)]
      params, opt_state = step(
        params, opt_state, images['train'][rows], data.train.labels[rows]
      )

    def accuracy(params, images=images['validation'], task=task):
      weights = powerprop.to_weights(params, alpha)
      predicted = np.argmax(logits_of(weights, images, task), 1)
      return np.mean(predicted == data.validation.labels)

    found = packnet.search(accuracy, params, pack, **strategy)
    pack = packnet.claim(params, pack, found.masks)
  assert packnet.usage(pack, 2)['all'].new > 0
  for path, owner in pack.owner.items():
    np.testing.assert_array_equal(owner, state.memory.pack.owner[path])
  for a, b in zip(
    jax.tree.leaves(params), jax.tree.leaves(state.train.params), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('stop_in', [0, 1, 3])
def test_a_run_goes_on_inside_any_task_as_if_not_stopped(tmp_path, stop_in):
  options = {'strategy': small.PACKNET, 'tasks': {'num_tasks': 2}}
  plan, units = make_units(**options)  # each task is trained and retrained
  assert run(plan, units, tmp_path / 'whole').status == 'done'

  def train(state, first_step, num_steps):
    if first_step == 0:
      os.kill(os.getpid(), signal.SIGTERM)
    return units[stop_in].train(state, first_step, num_steps)

  stopped = list(units)
  stopped[stop_in] = units[stop_in]._replace(train=train)
  assert run(plan, stopped, tmp_path / 'parts').status == 'interrupted'
  assert run(plan, units, tmp_path / 'parts').status == 'done'
  whole, parts = (
    (tmp_path / name / 'metrics.jsonl').read_bytes()
    for name in ('whole', 'parts')
  )
  assert whole == parts


def learned(units, num):
  """Returns the state after some units."""
  state = None
  for unit in units[:num]:
    state, _ = unit.train(unit.init(state), 0, 20)
    state, _ = unit.finish(state)
  return state


def with_other_bits(state):
  """Returns a state whose weights of task 1 differ by the last bit."""
  owner = state.memory.pack.owner['linear_0/w']
  params = dict(state.train.params)
  weights = params['linear_0']['w']
  changed = jnp.where(owner == 1, jnp.nextafter(weights, jnp.inf), weights)
  params['linear_0'] = {**params['linear_0'], 'w': changed}
  return state._replace(train=state.train._replace(params=params))


def test_what_is_forgotten_is_noticed_unless_told_otherwise():
  _, units = make_units()
  state = learned(units, 2)
  rows = units[1].report(state)
  changed = with_other_bits(state)
  with pytest.raises(units_lib.ForgettingError, match='logits of task 1 bit'):
    units[1].report(changed)
  _, unchecked = make_units(check=False)
  assert len(unchecked[1].report(changed)[0]) == len(rows[0])


@pytest.mark.parametrize('in_all', ['continue', 'stop'])
def test_a_network_that_is_full_stops_or_goes_on(in_all):
  _, units = make_units(strategy={**small.EVERYTHING, 'when_exhausted': in_all})
  state = learned(units, 1)
  if in_all == 'stop':
    with pytest.raises(
      loop.StopError, match='linear_0/w: 12544 of 12544 owned'
    ):
      units[1].init(state)
    return
  before = np.array(state.train.params['linear_0']['w'])
  head = np.array(state.train.params['linear_2']['w'])
  state, _ = units[1].train(units[1].init(state), 0, 20)
  np.testing.assert_array_equal(before, state.train.params['linear_0']['w'])
  changed = np.array(state.train.params['linear_2']['w']) != head
  assert changed[:, 10:20].all()
  assert not changed[:, :10].any()


def test_the_report_has_every_figure_and_its_plots(tmp_path):
  plan, units = make_units()
  run(plan, units, tmp_path)
  rows = metrics.read(tmp_path)
  splits = {row['split'] for row in rows}
  assert splits == {
    'train', 'validation', 'learned', 'untrained', 'test', 'usage'
  }  # fmt: skip
  [network] = report.summarize(rows)['networks']
  matrix = network['accuracies']
  assert np.isfinite(matrix[np.tril_indices(3)]).all()
  assert np.isfinite(np.diag(matrix, 1)).all()
  np.testing.assert_array_equal(matrix[2, :2], np.diag(matrix)[:2])
  assert network['forgetting'] == 0
  assert network['average_accuracy'] == np.mean(matrix[2])
  usage = [
    row for row in rows if row['split'] == 'usage' and row['layer'] == 'all'
  ]
  assert [row['owned'] for row in usage] == sorted(r['owned'] for r in usage)
  for row in usage:
    assert row['owned'] + row['free'] == pytest.approx(1)
  names = report.plots.draw_all(rows, tmp_path / 'plots')
  assert {path.name for path in names} == {
    'accuracy.png', 'capacity.png', 'matrix.png'
  }  # fmt: skip
  evaluated = loop.evaluate(units, run_lib.Run(tmp_path))
  again = [row for *_, row in evaluated if row['split'] == 'test']
  assert [r['accuracy'] for r in again] == [
    r['accuracy'] for r in rows if r['split'] == 'test'
  ]


def test_each_task_leaves_a_network():
  plan, units = make_units(tasks={'num_tasks': 2})
  state = learned(units, 2)
  found = build.call(
    continual_learning.trained, small.make_sections(tasks={'num_tasks': 2})
  )
  assert [(one.member['task'], one.position) for one in found] == [
    (1, 20), (2, 40),
  ]  # fmt: skip
  settings = plan.settings[0]
  for task, one in enumerate(found):
    weights, masks, _ = one.extract(state)
    params, _ = settings.strategy.predict(state_lib.network_of(state), task)
    np.testing.assert_array_equal(
      weights['linear_0']['w'], params['linear_0']['w']
    )
    assert not np.any(weights['linear_0']['w'][~masks['linear_0/w']])


def test_the_command_leaves_a_summary_and_evaluates_it(tmp_path, capsys):
  arguments = [
    '--config=configs/split_mnist.py:quick,strategy=packnet',
    f'--workdir={tmp_path}/run',
    '--config.model.hidden=(16, 12)',
    '--config.train.num_steps=20',
    '--config.train.log_every=10',
    '--config.train.eval_every=20',
    '--config.train.checkpoint_every=20',
    '--config.strategy.retrain_steps=10',
    '--config.tasks.num_tasks=2',
  ]
  assert launch.main(arguments) == 0
  summary = run_lib.read_json(tmp_path / 'run' / 'summary.json')
  [figures] = summary['figures']
  assert figures['forgetting'] == {'mean': 0.0, 'deviation': 0.0, 'num': 1}
  assert 0.6 < figures['average_accuracy']['mean'] <= 1
  assert (tmp_path / 'run' / 'plots' / 'capacity.png').exists()
  assert launch.main([*arguments, '--eval_only']) == 0
  evaluated = run_lib.read_json(tmp_path / 'run' / 'evaluation.json')
  assert evaluated['networks'] == summary['networks']
  assert '2 tasks' in capsys.readouterr().out
