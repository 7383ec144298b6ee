"""From a config to a trained network."""

import functools
import os
import signal

import jax
import numpy as np
import optax
import pytest

from experiments import checkpoint
from experiments import metrics
from experiments import trainer
from experiments.tasks import classification
import powerprop
from powerprop import packnet
import sparsity
from tests import oracles
from tests.experiments.tasks.continual import small


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'strategy': small.EFFICIENT | {'biases': 'no'}}, "biases out of .*'no'"),
    ({'strategy': small.L2 | {'strength': -1.0}}, r'strength in \[0, inf\)'),
    (
      {'strategy': small.EWC | {'num_examples': 21}},
      'multiple of .*=5, got 21',
    ),
    ({'train': {'batch_size': 91}}, 'batch_size: expected 1 to 90'),
    (
      {'strategy': small.EWC | {'num_examples': 100}},
      'num_examples: expected 1 to 90, .* smallest task, got 100',
    ),
  ],
)
def test_mistakes_are_refused_before_training(changes, message):
  with pytest.raises(ValueError, match=message):
    small.make_task(**changes).check_data()


def test_training_equals_a_loop_written_by_hand():
  search = {'gamma': 0.5, 'densities': (0.5, 0.2), 'scope': 'global'}
  task = small.make_task(
    strategy=small.EFFICIENT | search,
    powerprop={'alpha': 2.0},
    optimizer=small.SECTIONS['optimizer']
    | {'learning_rate': 0.1, 'momentum': 0.0, 'weight_decay': 0.0},
    train={'num_steps': 20},
  )
  *_, (_, state, _) = small.run(task, 2)
  params, pack = _train_by_hand(**search)
  assert packnet.usage(pack, 2)['all'].new > 0
  oracles.assert_same(pack.owner, state.net_state.memory.pack.owner)
  oracles.assert_close(params, state.params, atol=1e-5)


def _train_by_hand(**search):
  """Returns parameters and pack after two tasks of 20 steps."""
  network = small.network(norm=False, num_classes=9)
  tx = packnet.freeze(powerprop.powerprop(optax.sgd(0.1), 2.0))

  @jax.jit
  def draw(task):
    key = jax.random.fold_in(jax.random.key(0), task)
    weights, _ = network.init(key, np.zeros((1, small.SIZE), np.float32), True)
    return powerprop.from_weights(weights, 2.0)

  @functools.partial(jax.jit, static_argnums=2)
  def logits_of(weights, inputs, task):
    logits, _ = network.apply(weights, {}, None, inputs, True)
    return logits[:, 3 * task : 3 * (task + 1)]

  @functools.partial(jax.jit, static_argnums=4)
  def step(params, opt_state, inputs, labels, task):
    def loss(weights):
      logits = logits_of(weights, inputs, task)
      return classification.cross_entropy(logits, labels)

    gradients = jax.grad(loss)(powerprop.to_weights(params, 2.0))
    updates, opt_state = tx.update(gradients, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  params = draw(0)
  pack = packnet.init(
    params,
    num_tasks=3,
    is_head=sparsity.matching('out'),
    per_task_heads=False,
  )
  for task in range(2):
    (inputs, labels), validation = (
      (x.inputs[x.labels // 3 == task], x.labels[x.labels // 3 == task] % 3)
      for x in small.make_arrays()[:2]
    )
    params = packnet.start_task(params, pack, draw(task))
    sets = packnet.training_sets(params, pack)
    columns = np.arange(9) // 3 == task
    sets.backward['out'] = {
      'w': np.broadcast_to(columns, (15, 9)), 'b': columns,
    }  # fmt: skip
    opt_state = packnet.with_sets(tx.init(params), sets)
    [seed] = np.random.SeedSequence([0, task, 0]).generate_state(1)
    order = np.concatenate([
      np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(90)
      for epoch in range(3)
    ])  # fmt: skip
    for rows in order.reshape(-1, 10)[:20]:
      params, opt_state = step(
        params, opt_state, inputs[rows], labels[rows], task
      )

    def accuracy(params, examples=validation, task=task):
      weights = powerprop.to_weights(params, 2.0)
      predicted = np.argmax(logits_of(weights, examples[0], task), 1)
      return np.mean(predicted == examples[1])

    found = packnet.search(accuracy, params, pack, **search)
    pack = packnet.claim(params, pack, found.masks)
  return params, pack


@pytest.fixture(scope='module')
def packnet_task():
  return small.make_task(**small.NORMALIZED, strategy=small.PACKNET)


@pytest.fixture(scope='module')
def whole(packnet_task, tmp_path_factory):
  """The folder of a run that was not interrupted."""
  folder = tmp_path_factory.mktemp('whole')
  outcome = trainer.train(packnet_task, 0, folder, lambda *_: None)
  assert (outcome.status, outcome.step) == ('done', 240)
  return folder


# At the end of a task's training, and within its retraining.
@pytest.mark.parametrize('stop_at', [60, 70])
def test_an_interrupted_run_resumes_bit_for_bit(
  packnet_task, whole, tmp_path, stop_at
):
  def stop(step, _):
    if step == stop_at:
      os.kill(os.getpid(), signal.SIGTERM)

  outcome = trainer.train(packnet_task, 0, tmp_path, stop)
  assert (outcome.status, outcome.step) == ('interrupted', stop_at)
  outcome = trainer.train(packnet_task, 0, tmp_path, lambda *_: None)
  assert outcome.status == 'done'
  rows, states = [], []
  for folder in (whole, tmp_path):
    rows.append((folder / metrics.FILE).read_bytes())
    checkpoints = checkpoint.Checkpoints(folder / 'checkpoints', None)
    states.append(checkpoints.restore(packnet_task.state)[0])
  assert rows[0] == rows[1]
  oracles.assert_same(*states)
