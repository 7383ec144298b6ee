"""A stream of tasks as units of the loop, and what is tested after each.

Rows, beside those of the loop, each with the alpha, seed and task of its unit:

    split 'untrained'  accuracy on task `tested` before any training
    split 'test'       accuracy on task `tested`; of the next task too
    split 'learned'    what the strategy chose for the task
    split 'usage'      shares of each layer's weights, and of all
"""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.common import loop
from experiments.continual import learner as learner_lib
from experiments.continual import state as state_lib
from experiments.continual import strategies
import powerprop
import sparsity


class Testing(NamedTuple):
  """When and what is tested."""

  every: int  # tasks; all that are learned, and always the one just learned
  check_forgetting: bool


class Member(NamedTuple):
  """What all units of an alpha and a seed share."""

  learner: learner_lib.Learner
  settings: state_lib.Settings
  testing: Testing
  seed: int

  @property
  def num_tasks(self) -> int:
    """T."""
    return len(self.settings.stream.tasks)


class ForgettingError(RuntimeError):
  """A strategy that never forgets has changed logits of an earlier task."""


class Spell(NamedTuple):
  """What a unit trains: a phase of a task."""

  task: int  # from 0
  phase: int  # from 0
  num_steps: int
  learned: int  # the last task that is learned after it
  is_last_phase: bool


def spells(settings: state_lib.Settings, num_steps: int) -> list[Spell]:
  """Returns what one network goes through.

  Args:
    settings: how the network learns.
    num_steps: of each task, in each phase that has no number of its own.
  """
  num_tasks, strategy = len(settings.stream.tasks), settings.strategy
  if strategy.trains == 'all':
    return [Spell(0, 0, num_tasks * num_steps, num_tasks - 1, True)]
  last = len(strategy.phases) - 1
  return [
    Spell(task, number, phase.num_steps or num_steps, task, number == last)
    for task in range(num_tasks)
    for number, phase in enumerate(strategy.phases)
  ]


def make_units(member: Member, num_steps: int) -> list[loop.Unit]:
  """Returns the units of one network, one for each of `spells`."""
  return [
    _make_unit(member, spell) for spell in spells(member.settings, num_steps)
  ]


def _make_unit(member: Member, spell: Spell) -> loop.Unit:
  learner, settings, _, seed = member
  task, phase, num_steps, learned, is_last_phase = spell
  name = {'alpha': settings.alpha, 'seed': seed, 'task': learned + 1}
  if len(settings.strategy.phases) > 1:
    name['phase'] = phase + 1

  def train(state, first_step, steps):
    state, figures = learner.train(state, seed, task, phase, first_step, steps)
    return state, _for_one(figures)

  def evaluate(state):
    seen = sparsity.forward_weights(state.train.params, state.train.opt_state)
    figures = learner.evaluate(
      seen, state.train.net_state, learned, 'validation'
    )
    return _for_one(_without_fingerprint(figures))

  def report(state):
    if not is_last_phase:
      return []
    rows = [] if task else _untrained(member)
    return [rows + _tests(member, state, learned) + _usage(member, state)]

  return loop.Unit(
    members=(name,),
    num_steps=num_steps,
    init=lambda last: state_lib.begin(
      settings, learner.draw, last, seed=seed, task=task, phase=phase
    ),
    train=train,
    evaluate=evaluate,
    report=report,
    finish=lambda state: _finish(member, state, spell),
    like=lambda: jax.eval_shape(lambda: state_lib.initial(settings, 0)),
  )


def _finish(member: Member, state: state_lib.State, spell: Spell):
  """Returns the state when the strategy is done with a phase, and its rows."""
  learner, settings, _, seed = member
  strategy, task = settings.strategy, spell.task

  def accuracy(params, net_state):
    return learner.evaluate(params, net_state, task, 'validation')['accuracy']

  def fisher(params, net_state, num, batch_size):
    return learner.fisher(params, net_state, seed, task, num, batch_size)

  def weights(params):
    return powerprop.to_weights(params, settings.alpha)

  network, row = strategy.phases[spell.phase].finish(
    state_lib.network_of(state),
    strategies.Tools(accuracy, weights, fisher),
    task,
  )
  train = state.train._replace(
    params=network.params, net_state=network.net_state
  )
  fingerprints = state.fingerprints
  if strategy.never_forgets and spell.is_last_phase:
    figures = _test(learner, network, task)
    fingerprints = fingerprints.at[task].set(figures['fingerprint'])
  rows = [{'split': 'learned', **row}] if row else []
  return state_lib.State(train, network.memory, fingerprints), [rows]


def _test(learner, network, task: int):
  return learner.evaluate(*learner.predict(network, task), task, 'test')


def _untrained(member: Member) -> list[loop.Row]:
  """Returns what the network knows of each task before any training."""
  learner, *_, seed = member
  params, net_state, _ = learner.draw(seed, 0)
  found = [
    learner.evaluate(params, net_state, task, 'test')
    for task in range(member.num_tasks)
  ]
  return _rows('untrained', dict(enumerate(found)))


def _tests(member: Member, state: state_lib.State, learned: int):
  """Returns what the network knows after a task, and of the next one.

  Raises:
    ForgettingError: If logits are not what they were, and should be.
  """
  learner, settings, testing, _ = member
  num_tasks = member.num_tasks
  strategy = settings.strategy
  network = state_lib.network_of(state)
  chosen = {learned, min(learned + 1, num_tasks - 1)}
  if strategy.tests == 'one':
    chosen = {learned}
  elif (learned + 1) % testing.every == 0 or learned + 1 == num_tasks:
    chosen |= set(range(learned))
  found = jax.device_get(
    {task: _test(learner, network, task) for task in sorted(chosen)}
  )
  if strategy.never_forgets and testing.check_forgetting:
    for task in sorted(chosen):
      if task < learned:
        _check(task, found[task]['fingerprint'], state.fingerprints[task])
  return _rows('test', found)


def _check(task: int, now, before) -> None:
  if int(now) != int(before):
    raise ForgettingError(
      f'expected the test logits of task {task + 1} bit for bit as they were '
      f'when it was learned (fingerprint {int(before)}), got others '
      f'({int(now)}). If this run was resumed on another device or with other '
      'versions, rounding may differ: config.test.check_forgetting=False goes '
      'on without this check'
    )


def _usage(member: Member, state: state_lib.State) -> list[loop.Row]:
  strategy = member.settings.strategy
  if strategy.usage is None:
    return []
  return [
    {'split': 'usage', 'layer': layer, **shares._asdict()}
    for layer, shares in strategy.usage(state.memory).items()
  ]


def _rows(split: str, figures: dict[int, Any]) -> list[loop.Row]:
  return [
    {
      'split': split,
      'tested': task + 1,
      **{k: float(v) for k, v in _without_fingerprint(found).items()},
    }
    for task, found in jax.device_get(figures).items()
  ]


def _without_fingerprint(figures):
  return {k: v for k, v in figures.items() if k != 'fingerprint'}


def _for_one(figures):
  return {name: jnp.reshape(value, (1,)) for name, value in figures.items()}
