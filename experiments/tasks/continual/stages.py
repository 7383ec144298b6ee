"""The stages of continual learning: one for each phase of each task.

Rows of metrics, beside those of the trainer:

    split 'untrained'  accuracy on task `tested` before any training
    split 'test'       accuracy on task `tested`; on the next task too
    split 'learned'    the strategy's choice for the task
    split 'usage'      shares of the weights of each layer, and of all

T: number of tasks.
"""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import mesh as mesh_lib
from experiments import state as state_lib
from experiments import step as step_lib
from experiments.data import tasks as tasks_lib
from experiments.models import heads as heads_lib
from experiments.tasks import base
from experiments.tasks.continual import evaluation
from experiments.tasks.continual import feed
from experiments.tasks.continual import strategies
from powerprop import packnet
import sparsity

_TRAINING = 2**31 - 1  # folded into the key of training; below: initial weights


class ForgettingError(RuntimeError):
  """The logits of an earlier task have changed in spite of the strategy."""


class NetState(NamedTuple):
  """The part of the training state that no gradient reaches."""

  statistics: Any  # of normalization
  memory: Any  # of the strategy
  fingerprints: jax.Array  # uint32 [T], of the test logits of learned tasks


class Testing(NamedTuple):
  """The section `config.test`."""

  every: int  # tasks; the current task is always tested
  check_forgetting: bool


class Setup(NamedTuple):
  """The checked config, with the functions that all stages share."""

  stream: tasks_lib.Stream
  heads: heads_lib.Heads
  strategy: strategies.Strategy
  objective: step_lib.Objective
  training: base.Training
  testing: Testing
  init: Callable[[jax.Array], tuple[Any, NetState]]  # from a key; theta
  data: Callable[[], feed.Data]  # reads at the first call

  @property
  def num_tasks(self) -> int:
    """T."""
    return len(self.stream.tasks)


class _Compiled(NamedTuple):
  """Compiled functions; a further task or seed compiles nothing."""

  start: Callable[[Any], base.State]  # seed -> state before the first task
  draw: Callable[[Any, Any], strategies.Network]  # (seed, task) -> no memory
  # (params, statistics, task, views, examples, part) -> metrics
  evaluate: Callable[..., evaluation.Metrics]
  # (network, task) -> params, statistics
  predict: Callable[[strategies.Network, Any], tuple[Any, Any]]
  # (batch size, params, statistics, task, views, examples) -> tree like theta
  fisher: Callable[..., Any]


class _Part(NamedTuple):
  """The part of the stream that one stage trains."""

  task: int  # from 0
  phase: int
  learned: int  # the last learned task at the end of the stage
  num_steps: int
  is_last_phase: bool


def network_of(state: base.State) -> strategies.Network:
  """Returns the network in a training state."""
  return strategies.Network(
    state.params, state.net_state.statistics, state.net_state.memory
  )


def make_stages(
  setup: Setup, has_statistics: bool
) -> tuple[tuple[base.Stage, ...], tuple[base.Export, ...]]:
  """Returns the stages, and the network of each task at its end.

  Args:
    setup: the checked config.
    has_statistics: whether the network normalizes by batch statistics.
  """
  compiled = _compile(setup)
  stages, exports, step = [], [], 0
  for part in _parts(setup):
    stages.append(_make_stage(setup, compiled, part, has_statistics))
    step += part.num_steps
    if part.is_last_phase:
      extract = functools.partial(_extract, setup, part.learned)
      exports.append(base.Export({'task': part.learned + 1}, step, extract))
  return tuple(stages), tuple(exports)


def _parts(setup: Setup) -> list[_Part]:
  num_steps, phases = setup.training.num_steps, setup.strategy.phases
  if setup.strategy.is_joint:
    last = setup.num_tasks - 1
    return [_Part(0, 0, last, setup.num_tasks * num_steps, True)]
  return [
    _Part(t, p, t, phase.num_steps or num_steps, p == len(phases) - 1)
    for t in range(setup.num_tasks)
    for p, phase in enumerate(phases)
  ]


def _compile(setup: Setup) -> _Compiled:
  method, heads = setup.objective.method, setup.heads
  jit = functools.partial(
    jax.jit, out_shardings=mesh_lib.replicated(setup.training.mesh)
  )

  def draw(seed, task):
    key = jax.random.fold_in(jax.random.key(seed), task)
    weights, net_state = setup.init(key)
    params = method.from_weights(weights)
    return strategies.Network(params, net_state.statistics, None)

  def evaluate(params, *args):
    return evaluation.evaluate(heads, method.to_weights(params), *args)

  def fisher(batch_size, params, *args):
    weights = method.to_weights(params)
    return evaluation.fisher(heads, batch_size, weights, *args)

  return _Compiled(
    jit(lambda seed: state_lib.init_state(method, setup.init, seed)),
    jit(draw),
    jit(evaluate),
    jit(setup.strategy.predict),
    jit(fisher, static_argnums=0),
  )


def _make_stage(
  setup: Setup, compiled: _Compiled, part: _Part, has_statistics: bool
) -> base.Stage:
  task, phase, learned, num_steps, is_last_phase = part
  strategy, num_phases = setup.strategy, len(setup.strategy.phases)
  labels = {'task': learned + 1}
  if num_phases > 1:
    labels['phase'] = phase + 1

  def key(seed):
    key = jax.random.fold_in(jax.random.key(seed), _TRAINING)
    return jax.random.fold_in(key, task * num_phases + phase)

  def batches(seed, first_step, num_steps):
    data = setup.data()
    chosen = feed.choose_rows(
      [rows['train'] for rows in data.tasks.rows],
      task=None if strategy.is_joint else task,
      seed=feed.order_seed(seed, task, phase),
      batch_size=setup.training.batch_size,
      first_step=first_step,
      num_steps=num_steps,
    )
    yield feed.chunk(data, setup.training.mesh, chosen), num_steps

  def evaluate(state):
    params = sparsity.forward_weights(state.params, state.opt_state)
    statistics = state.net_state.statistics
    metrics = _evaluate(
      setup, compiled, params, statistics, learned, 'validation'
    )
    return {name: metrics[name] for name in ('loss', 'accuracy')}

  def report(seed, state):
    if not is_last_phase:
      return []
    rows = [] if task else _untrained(setup, compiled, seed)
    rows += _tests(setup, compiled, state, learned)
    usage = strategy.usage(state.net_state.memory) if strategy.usage else {}
    return rows + [
      {'split': 'usage', 'layer': layer, **shares._asdict()}
      for layer, shares in usage.items()
    ]

  return base.Stage(
    num_steps=num_steps,
    labels=labels,
    begin=functools.partial(_begin, setup, compiled, part),
    batches=batches,
    evaluate=evaluate,
    finish=functools.partial(_finish, setup, compiled, part),
    report=report,
    key=key,
    is_training=not (strategy.keep_statistics and has_statistics and task),
  )


def _begin(setup, compiled, part: _Part, seed: int, last: Any) -> base.State:
  """Returns the first state of a stage."""
  strategy, task = setup.strategy, part.task
  if task == part.phase == 0:
    last = compiled.start(np.uint32(seed))
  network = network_of(last)
  fresh = compiled.draw(np.uint32(seed), task)
  network, sets = strategy.phases[part.phase].start(
    network, fresh._replace(memory=network.memory), task
  )
  opt_state = last.opt_state
  if not strategy.keep_optimizer:
    tx, _ = setup.objective.method.make(seed)
    opt_state = tx.init(network.params)
  return _replicate(
    setup,
    base.State(
      jnp.zeros([], jnp.int32),
      network.params,
      NetState(network.statistics, network.memory, last.net_state.fingerprints),
      packnet.with_sets(opt_state, sets),
    ),
  )


def _finish(
  setup, compiled, part: _Part, seed: int, state: base.State
) -> tuple[base.State, list[base.Row]]:
  """Returns the state at the end of a stage, and the strategy's row."""
  strategy, task = setup.strategy, part.task

  def fisher(network, num, batch_size):
    data = setup.data()
    rows, _ = feed.choose_rows(
      [rows['train'] for rows in data.tasks.rows],
      task=task,
      seed=feed.order_seed(seed, task, 0),
      batch_size=num,
      first_step=0,
      num_steps=1,
    )
    examples = jax.tree.map(lambda x: x[rows[0]], data.tasks.examples.train)
    params, statistics, _ = network
    return compiled.fisher(
      batch_size, params, statistics, task, data.views, examples
    )

  def accuracy(params, statistics):
    return _evaluate(setup, compiled, params, statistics, task, 'validation')[
      'accuracy'
    ]

  network, row = strategy.phases[part.phase].finish(
    network_of(state),
    strategies.Probe(setup.objective.method.to_weights, accuracy, fisher),
    task,
  )
  fingerprints = state.net_state.fingerprints
  if strategy.never_forgets and part.is_last_phase:
    metrics = _test(setup, compiled, network, task)
    fingerprints = fingerprints.at[task].set(metrics['fingerprint'])
  state = state._replace(
    params=network.params,
    net_state=NetState(network.statistics, network.memory, fingerprints),
  )
  rows = [{'split': 'learned', **row}] if row else []
  return _replicate(setup, state), rows


def _extract(setup: Setup, task: int, state: base.State):
  """Returns theta, masks or None, and the statistics of a task."""
  strategy, network = setup.strategy, network_of(state)
  params, statistics = strategy.predict(network, task)
  masks = strategy.masks(network.memory, task) if strategy.masks else None
  return setup.objective.method.to_weights(params), masks, statistics


def _evaluate(setup, compiled, params, statistics, task: int, split: str):
  """Returns the metrics on a task, with the fingerprint of the logits."""
  data = setup.data()
  return compiled.evaluate(
    params,
    statistics,
    task,
    data.views,
    data.examples[split],
    data.parts[split][task],
  )


def _test(setup, compiled, network, task: int):
  own = compiled.predict(network, task)
  return _evaluate(setup, compiled, *own, task, 'test')


def _untrained(setup, compiled, seed: int) -> list[base.Row]:
  """Returns the metrics of every task before any training."""
  params, statistics, _ = compiled.draw(np.uint32(seed), 0)
  found = [
    _evaluate(setup, compiled, params, statistics, task, 'test')
    for task in range(setup.num_tasks)
  ]
  return _rows('untrained', dict(enumerate(found)))


def _tests(setup, compiled, state, learned: int) -> list[base.Row]:
  """Returns the metrics of the learned tasks, and of the next one.

  Raises:
    ForgettingError: If logits that have to stay the same have changed.
  """
  strategy, testing, num_tasks = setup.strategy, setup.testing, setup.num_tasks
  network = network_of(state)
  chosen = {learned}
  if not strategy.is_alone:
    chosen.add(min(learned + 1, num_tasks - 1))
    if (learned + 1) % testing.every == 0 or learned + 1 == num_tasks:
      chosen |= set(range(learned))
  found = jax.device_get(
    {task: _test(setup, compiled, network, task) for task in sorted(chosen)}
  )
  if strategy.never_forgets and testing.check_forgetting:
    fingerprints = state.net_state.fingerprints
    for task in range(learned):
      if task in found:
        _check(task, found[task]['fingerprint'], fingerprints[task])
  return _rows('test', found)


def _check(task: int, now: Any, before: Any) -> None:
  if int(now) != int(before):
    raise ForgettingError(
      f'expected the test logits of task {task + 1} bit for bit as they were '
      f'at its end (fingerprint {int(before)}), got others ({int(now)}). '
      'Rounding may differ if this run was resumed on another device or with '
      'other versions: config.test.check_forgetting=False skips this check'
    )


def _rows(split: str, found: dict[int, Any]) -> list[base.Row]:
  return [
    {
      'split': split,
      'tested': task + 1,
      'loss': float(metrics['loss']),
      'accuracy': float(metrics['accuracy']),
    }
    for task, metrics in jax.device_get(found).items()
  ]


def _replicate(setup: Setup, state: base.State) -> base.State:
  """Places a state as compiled steps expect it."""
  return jax.device_put(state, mesh_lib.replicated(setup.training.mesh))
