"""Tasks one after another, on a network and data small enough to look into."""

import logging

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.common import build
from experiments.continual import learner as learner_lib
from experiments.continual import plan
from experiments.continual import state as state_lib
from experiments.continual import units as units_lib
from experiments.data import dataset
from experiments.data import tasks as tasks_lib
from experiments.data import views as views_lib
from experiments.models import heads as heads_lib
import powerprop
from powerprop import packnet

NUM_TASKS, NUM_CLASSES, SIZE, NUM_STEPS = 3, 3, 12, 60
EFFICIENT = {
  'name': 'efficient_packnet', 'gamma': 0.9, 'densities': (0.5, 0.3, 0.15),
  'search': 'linear', 'biases': 'frozen', 'when_exhausted': 'stop',
  'keep_optimizer': False,
}  # fmt: skip
PACKNET = {
  'name': 'packnet', 'density': None, 'retrain_steps': 20, 'biases': 'frozen',
  'when_exhausted': 'stop', 'keep_optimizer': False,
}  # fmt: skip
EWC = {
  'name': 'ewc', 'strength': 10.0, 'num_examples': 20, 'fisher_batch_size': 5,
  'keep_optimizer': False,
}  # fmt: skip
L2 = {'name': 'l2', 'strength': 1.0, 'keep_optimizer': True}
FINE = {'name': 'fine_tuning', 'keep_optimizer': False}
MOMENTUM = optax.chain(
  optax.add_decayed_weights(1e-3), optax.sgd(0.01, momentum=0.9)
)


def make_arrays():
  random = np.random.default_rng(0)
  centers = random.normal(size=(NUM_CLASSES, SIZE))

  def draw(num):
    labels = random.integers(0, NUM_CLASSES, num).astype(np.int32)
    noise = random.normal(size=(num, SIZE))
    inputs = (centers[labels] + 0.5 * noise).astype(np.float32)
    return dataset.Examples(inputs, labels)

  return dataset.Arrays(draw(90), draw(31), draw(37), NUM_CLASSES, None)


ARRAYS = make_arrays()


def make_stream():
  orders = [np.arange(SIZE)] + [
    np.random.default_rng(task).permutation(SIZE) for task in (1, 2)
  ]
  return tasks_lib.Stream(
    tuple(
      views_lib.Task(
        tuple(range(NUM_CLASSES)),
        views_lib.Pixels(order[None].astype(np.int32), None),
      )
      for order in orders
    ),
    NUM_CLASSES,
    (SIZE,),
    None,
    lambda: ARRAYS,
  )


def make_network(norm):
  def network(num_classes):
    def forward(x, is_training):
      x = hk.Linear(20, name='first')(x)
      if norm:
        x = hk.BatchNorm(True, True, 0.9, name='batch_norm')(x, is_training)
      x = jax.nn.relu(hk.Linear(15, name='second')(jax.nn.relu(x)))
      return hk.Linear(num_classes, name='out')(x)

    return hk.transform_with_state(forward)

  return network


def make_settings(
  section, *, alpha=1.0, shared=False, norm=False, optimizer=MOMENTUM
):
  heads = heads_lib.make_heads(
    make_network(norm),
    jax.ShapeDtypeStruct((1, SIZE), jnp.float32),
    num_classes=NUM_CLASSES,
    num_heads=1 if shared else NUM_TASKS,
  )
  more = {'heads': heads}
  if 'packnet' in section['name']:
    more['num_tasks'] = NUM_TASKS
  return state_lib.Settings(
    make_stream(),
    heads,
    build.build(plan.STRATEGIES, section, **more),
    packnet.freeze(powerprop.powerprop(optimizer, alpha)),
    alpha,
    0.0,
    batch_size=10,
    eval_batch_size=16,
  )


def make_member(section, check=True, **options):
  settings = make_settings(section, **options)
  learner = learner_lib.make_learner(tasks_lib.read(settings.stream), settings)
  return units_lib.Member(learner, settings, units_lib.Testing(1, check), 0)


def go_through(member, num_steps=NUM_STEPS):
  """Yields what each unit has trained, its state and its rows."""
  state = None
  for spell, unit in zip(
    units_lib.spells(member.settings, num_steps),
    units_lib.make_units(member, num_steps),
    strict=True,
  ):
    state, _ = unit.train(unit.init(state), 0, unit.num_steps)
    state, rows = unit.finish(state)
    rows = [row for own in (rows, unit.report(state)) for r in own for row in r]
    yield spell, jax.device_get(state), rows  # its arrays are given away next


def logits_of(member, state, task):
  """Returns the bits of the logits, of a network called by hand."""
  params, net_state = member.learner.predict(state_lib.network_of(state), task)
  weights = powerprop.to_weights(params, member.settings.alpha)
  order = member.settings.stream.tasks[task].pixels.source[0]
  logits, _ = member.settings.heads.apply(
    weights, net_state, None, ARRAYS.test.inputs[:, order], False, task
  )
  accuracy = np.mean(np.argmax(logits, 1) == ARRAYS.test.labels)
  return np.asarray(logits).view(np.uint32), accuracy


@pytest.mark.parametrize(
  ('section', 'options'),
  [
    (EFFICIENT, {'alpha': 2.0, 'norm': True}),
    (EFFICIENT | {'keep_optimizer': True}, {'shared': True}),
    (EFFICIENT, {'optimizer': optax.adamw(0.01, weight_decay=0.1)}),
    (PACKNET | {'biases': 'per_task', 'keep_optimizer': True}, {'norm': True}),
    (PACKNET, {'alpha': 2.0}),
  ],
)
def test_nothing_is_forgotten_bit_for_bit(section, options):
  member = make_member(section, **options)
  remembered = {}
  for spell, state, _ in go_through(member):
    if spell.is_last_phase:
      remembered[spell.task], accuracy = logits_of(member, state, spell.task)
      assert accuracy > 0.6 or options.get('shared')
    for task, logits in remembered.items():
      np.testing.assert_array_equal(logits_of(member, state, task)[0], logits)
  assert len(remembered) == NUM_TASKS


@pytest.mark.parametrize('section', [FINE, EWC, L2])
def test_other_strategies_learn_and_may_forget(section):
  member = make_member(section)
  before = None
  for spell, state, rows in go_through(member):
    logits, accuracy = logits_of(member, state, 0)
    if spell.task == 0:
      before = logits
      assert accuracy > 0.8
    else:
      assert not np.array_equal(before, logits)
    tests = {r['tested']: r for r in rows if r['split'] == 'test'}
    assert set(tests) == set(range(1, min(spell.task + 3, NUM_TASKS + 1)))
    assert tests[1]['accuracy'] == pytest.approx(accuracy)


@pytest.mark.parametrize(('section', 'strong'), [(EWC, 1e3), (L2, 10.0)])
def test_a_strong_penalty_holds_the_weights(section, strong):
  def moved(strength):
    member = make_member(section | {'strength': strength})
    params = [
      state.train.params['first']['w'] for _, state, _ in go_through(member, 10)
    ]
    return np.linalg.norm(params[-1] - params[0])

  assert moved(strong) < 0.7 * moved(0.0)


def test_all_tasks_at_once_are_learned_together():
  member = make_member({'name': 'joint'})
  [(spell, state, rows)] = list(go_through(member))
  assert spell.num_steps == NUM_TASKS * NUM_STEPS
  accuracies = [logits_of(member, state, task)[1] for task in range(NUM_TASKS)]
  assert min(accuracies) > 0.8
  tests = [r['accuracy'] for r in rows if r['split'] == 'test']
  np.testing.assert_allclose(tests, accuracies, rtol=1e-6)


def test_one_network_a_task_begins_anew():
  member = make_member({'name': 'alone'})
  ended = [state for _, state, _ in go_through(member)]
  unit = units_lib.make_units(member, NUM_STEPS)[1]
  again, _ = unit.train(unit.init(ended[2]), 0, NUM_STEPS)
  for a, b in zip(
    jax.tree.leaves(again.train.params),
    jax.tree.leaves(ended[1].train.params),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
  assert not np.any(
    ended[0].train.params['first']['w'] == ended[1].train.params['first']['w']
  )


def test_decay_and_momentum_reach_no_other_head():
  member = make_member(FINE)
  drawn = jax.device_get(member.learner.draw(0, 0).params['out']['w'])
  heads = [slice(i * NUM_CLASSES, (i + 1) * NUM_CLASSES) for i in range(3)]
  for spell, state, _ in go_through(member, 10):
    for task, columns in enumerate(heads):
      stays = state.train.params['out']['w'][:, columns] == drawn[:, columns]
      assert stays.all() if task > spell.task else not stays.any()


@pytest.mark.parametrize('biases', ['frozen', 'per_task'])
def test_statistics_of_normalization_are_of_the_first_task_or_of_each(biases):
  member = make_member(EFFICIENT | {'biases': biases}, norm=True)
  states, seen = [], []
  for spell, state, _ in go_through(member):
    states.append(jax.tree.leaves(state.train.net_state))
    seen.append(
      jax.tree.leaves(
        member.learner.predict(state_lib.network_of(state), spell.task)[1]
      )
    )
  equal = [all(map(np.array_equal, states[0], later)) for later in states[1:]]
  assert equal == [biases == 'frozen'] * 2
  for own, state in zip(seen, states, strict=True):
    assert all(map(np.array_equal, own, state))


@pytest.mark.parametrize('section', [EFFICIENT, PACKNET])
def test_a_further_task_compiles_nothing(section, caplog, monkeypatch):
  member = make_member(section, alpha=2.0, norm=True)
  monkeypatch.setattr(logging.getLogger('jax'), 'propagate', True)

  def compiled():
    return [r for r in caplog.records if 'Compiling' in r.getMessage()]

  num_compiled = []
  with jax.log_compiles():
    for _ in go_through(member):
      num_compiled.append(len(compiled()))
  # The second task still compiles its step with frozen statistics.
  per_task = len(member.settings.strategy.phases)
  assert num_compiled[0] > 0
  assert num_compiled[-1] == num_compiled[-1 - per_task], [
    r.getMessage()[:80] for r in compiled()[num_compiled[-1 - per_task] :]
  ]
