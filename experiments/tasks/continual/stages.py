"""The stages of continual learning: one for each phase of each task.

Rows of metrics, beside those of the trainer:

    split 'untrained'  accuracy on task `tested` before any training
    split 'test'       accuracy on task `tested`; on the next task too
    split 'learned'    the strategy's choice for the task
    split 'usage'      shares of the weights of each layer, and of all
"""

from collections.abc import Callable
import dataclasses
import functools
import itertools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import mesh as mesh_lib
from experiments import methods
from experiments import state as state_lib
from experiments.tasks import base
from experiments.tasks import training as training_lib
from experiments.tasks.continual import evaluation
from experiments.tasks.continual import feed
from experiments.tasks.continual import strategies
from powerprop import packnet
import sparsity
from sparsity import select as select_lib

_TRAINING = 2**31 - 1  # folded into the key of training; below: initial weights


class ForgettingError(RuntimeError):
  """The logits of an earlier task have changed in spite of the strategy."""


class NetState(NamedTuple):
  """The part of the training state without gradients."""

  statistics: Any  # of normalization
  memory: Any  # of the strategy
  fingerprints: jax.Array  # uint32 [T], of the test logits of learned tasks


class Testing(NamedTuple):
  """The section `config.test`."""

  every: int  # tasks; the current task is always tested
  check_forgetting: bool


class Phase(NamedTuple):
  """A phase of a task."""

  task: int  # from 0
  number: int  # of the phase, from 0
  num_steps: int
  learned: int  # the last task that is learned at its end
  is_last_phase: bool


@dataclasses.dataclass(frozen=True)
class Learner:
  """The stages of one stream; a further task or seed compiles nothing."""

  strategy: strategies.Strategy
  method: methods.Method
  # From a key to theta and the rest of the network's state.
  init: Callable[[jax.Array], tuple[Any, NetState]]
  training: training_lib.Training
  testing: Testing
  num_tasks: int
  evaluator: evaluation.Evaluator

  def stages(self, has_statistics: bool) -> tuple[base.Stage, ...]:
    """Returns the stages; `has_statistics`: the network normalizes batches."""
    is_frozen = self.strategy.keep_statistics and has_statistics
    has_phases = len(self.strategy.num_steps) > 1
    return tuple(
      base.Stage(
        num_steps=phase.num_steps,
        labels={'task': phase.learned + 1}
        | ({'phase': phase.number + 1} if has_phases else {}),
        begin=functools.partial(self._begin, phase),
        batches=functools.partial(self._batches, phase),
        evaluate=functools.partial(self._validate, phase),
        finish=functools.partial(self._finish, phase),
        report=functools.partial(self._report, phase),
        key=functools.partial(self._key, phase),
        is_training=not (is_frozen and phase.task > 0),
      )
      for phase in self._phases()
    )

  def exports(self) -> tuple[base.Export, ...]:
    """Returns the network of each task at its end."""
    phases = self._phases()
    ends = itertools.accumulate(phase.num_steps for phase in phases)
    return tuple(
      base.Export(
        {'task': phase.learned + 1},
        step,
        functools.partial(self._extract, phase.learned),
      )
      for phase, step in zip(phases, ends, strict=True)
      if phase.is_last_phase
    )

  @functools.cached_property
  def _start(self) -> Callable[[Any], base.State]:
    """From a seed to the state before the first task."""
    return self._jit(
      lambda seed: state_lib.init_state(self.method, self.init, seed)
    )

  @functools.cached_property
  def _draw(self) -> Callable[[Any, Any], strategies.Network]:
    """From a seed and a task to a new network without memory."""

    def draw(seed, task):
      key = jax.random.fold_in(jax.random.key(seed), task)
      weights, net_state = self.init(key)
      params = self.method.from_weights(weights)
      return strategies.Network(params, net_state.statistics, None)

    return self._jit(draw)

  def _jit(self, fn):
    return jax.jit(fn, out_shardings=mesh_lib.replicated(self.training.mesh))

  def _phases(self) -> list[Phase]:
    """Returns the phases of all tasks; all tasks at once are one."""
    num_steps, steps = self.training.num_steps, self.strategy.num_steps
    last = self.num_tasks - 1
    if self.strategy.is_joint:
      return [Phase(0, 0, self.num_tasks * num_steps, last, True)]
    return [
      Phase(task, number, own or num_steps, task, number == len(steps) - 1)
      for task in range(self.num_tasks)
      for number, own in enumerate(steps)
    ]

  def _key(self, phase: Phase, seed: Any) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(seed), _TRAINING)
    number = phase.task * len(self.strategy.num_steps) + phase.number
    return jax.random.fold_in(key, number)

  def _batches(self, phase: Phase, seed: int, first_step: int, num_steps: int):
    data = self.evaluator.data()
    chosen = feed.choose_rows(
      data.rows,
      seed=seed,
      task=None if self.strategy.is_joint else phase.task,
      phase=phase.number,
      batch_size=self.training.batch_size,
      first_step=first_step,
      num_steps=num_steps,
    )
    yield feed.chunk(data, self.training.mesh, *chosen), num_steps

  def _begin(self, phase: Phase, seed: int, last: Any) -> base.State:
    """Returns the first state of a stage."""
    strategy, task = self.strategy, phase.task
    if task == phase.number == 0:
      last = self._start(np.uint32(seed))
    network = _network(last)
    fresh = self._draw(np.uint32(seed), task)._replace(memory=network.memory)
    network, sets = strategy.start(network, fresh, task, phase.number)
    params, statistics, memory = network
    if self.evaluator.heads.are_per_task and not strategy.is_joint:
      own = self.evaluator.heads.masks(params, task)
      sets = sets._replace(backward=select_lib.put(sets.backward, own))
    opt_state = last.opt_state
    if not strategy.keep_optimizer:
      opt_state = self.method.make(seed)[0].init(params)
    return self._place(
      base.State(
        jnp.zeros([], jnp.int32),
        params,
        NetState(statistics, memory, last.net_state.fingerprints),
        packnet.with_sets(opt_state, sets),
      )
    )

  def _finish(
    self, phase: Phase, seed: int, state: base.State
  ) -> tuple[base.State, list[base.Row]]:
    """Returns the state at the end of a stage, and the strategy's row."""
    strategy, evaluator, task = self.strategy, self.evaluator, phase.task
    probe = strategies.Probe(
      self.method.to_weights,
      lambda *args: evaluator.evaluate(*args, task, 'validation')['accuracy'],
      functools.partial(evaluator.fisher, seed=seed, task=task),
      sparsity.active_sets(state.opt_state).backward,
    )
    network, row = strategy.finish(_network(state), probe, task, phase.number)
    fingerprints = state.net_state.fingerprints
    if strategy.is_packed and phase.is_last_phase:
      found = self.evaluator.test(network, task)['fingerprint']
      fingerprints = fingerprints.at[task].set(found)
    net_state = NetState(network.statistics, network.memory, fingerprints)
    state = state._replace(params=network.params, net_state=net_state)
    return self._place(state), [{'split': 'learned', **row}] if row else []

  def _validate(self, phase: Phase, state: base.State) -> dict[str, jax.Array]:
    params = sparsity.forward_weights(state.params, state.opt_state)
    metrics = self.evaluator.evaluate(
      params, state.net_state.statistics, phase.learned, 'validation'
    )
    return {name: metrics[name] for name in ('loss', 'accuracy')}

  def _report(
    self, phase: Phase, seed: int, state: base.State
  ) -> list[base.Row]:
    """Returns the final rows of a task.

    Raises:
      ForgettingError: If logits that have to stay the same have changed.
    """
    if not phase.is_last_phase:
      return []
    rows, network = [], _network(state)
    if phase.task == 0:
      params, statistics, _ = self._draw(np.uint32(seed), 0)
      for task in range(self.num_tasks):
        metrics = self.evaluator.evaluate(params, statistics, task, 'test')
        rows.append(_row('untrained', task, metrics))
    for task in self._tested(phase.learned):
      metrics = self.evaluator.test(network, task)
      rows.append(_row('test', task, metrics))
      if task < phase.learned and self.strategy.is_packed:
        self._check(task, state.net_state.fingerprints[task], metrics)
    if self.strategy.is_packed:
      for layer, shares in packnet.usage(network.memory.pack).items():
        rows.append({'split': 'usage', 'layer': layer, **shares._asdict()})
    return rows

  def _tested(self, learned: int) -> list[int]:
    """Returns the tasks to test when one is learned."""
    last, tested = self.num_tasks - 1, {learned}
    if not self.strategy.is_alone:
      tested.add(min(learned + 1, last))
      if (learned + 1) % self.testing.every == 0 or learned == last:
        tested |= set(range(learned))
    return sorted(tested)

  def _check(self, task: int, fingerprint: Any, metrics: Any) -> None:
    """Checks that the network has not forgotten an earlier task."""
    before, now = int(fingerprint), int(metrics['fingerprint'])
    if self.testing.check_forgetting and now != before:
      raise ForgettingError(
        f'expected the test logits of task {task + 1} bit for bit as they were '
        f'at its end (fingerprint {before}), got others ({now}). Rounding may '
        'differ if this run was resumed on another device or with other '
        'versions: config.test.check_forgetting=False skips this check'
      )

  def _extract(self, task: int, state: base.State):
    """Returns theta, masks or None, and the statistics of a task."""
    network = _network(state)
    params, statistics = self.strategy.predict(network, task)
    masks = None
    if self.strategy.is_packed:
      masks = packnet.task_masks(network.memory.pack, task + 1)
    return self.method.to_weights(params), masks, statistics

  def _place(self, state: base.State) -> base.State:
    """Returns a state placed as the compiled steps expect it."""
    return jax.device_put(state, mesh_lib.replicated(self.training.mesh))


def _network(state: base.State) -> strategies.Network:
  statistics, memory, _ = state.net_state
  return strategies.Network(state.params, statistics, memory)


def _row(split: str, task: int, metrics: dict[str, Any]) -> base.Row:
  shown = {name: float(metrics[name]) for name in ('loss', 'accuracy')}
  return {'split': split, 'tested': task + 1, **shown}
