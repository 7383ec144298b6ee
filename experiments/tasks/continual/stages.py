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
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import mesh as mesh_lib
from experiments import methods
from experiments.tasks import base
from experiments.tasks.continual import feed as feed_lib
from experiments.tasks.continual import strategies
from powerprop import packnet
import sparsity
from sparsity import select as select_lib

_TRAINING = 2**31 - 1  # folded into the key of training; below: initial weights


class ForgettingError(RuntimeError):
  """The logits of an earlier task have changed in spite of the strategy."""


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
  # From a key to theta and the network's state.
  init: Callable[[jax.Array], tuple[Any, strategies.NetState]]
  testing: Testing
  num_tasks: int
  feed: feed_lib.Feed

  def stages(self) -> tuple[base.Stage, ...]:
    """Returns the stages."""
    _, net_state = jax.eval_shape(self.init, jax.random.key(0))
    has_statistics = bool(jax.tree.leaves(net_state.statistics))
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
    phases, exports, step = self._phases(), [], 0
    for phase in phases:
      step += phase.num_steps
      if phase.is_last_phase:
        extract = functools.partial(self._extract, phase.learned)
        exports.append(base.Export({'task': phase.learned + 1}, step, extract))
    return tuple(exports)

  @functools.cached_property
  def _start(self) -> Callable[[Any], base.State]:
    """From a seed to the state before the first task."""
    return jax.jit(
      functools.partial(methods.init_state, self.method, self.init),
      out_shardings=self._replicated,
    )

  @functools.cached_property
  def _draw(self) -> Callable[[Any, Any], tuple[Any, Any]]:
    """From a seed and a task to new parameters and statistics."""

    def draw(seed, task):
      key = jax.random.fold_in(jax.random.key(seed), task)
      weights, net_state = self.init(key)
      return self.method.from_weights(weights), net_state.statistics

    return jax.jit(draw, out_shardings=self._replicated)

  @property
  def _replicated(self) -> jax.sharding.Sharding:
    return mesh_lib.replicated(self.feed.training.mesh)

  def _phases(self) -> list[Phase]:
    """Returns the phases of all tasks; all tasks at once are one."""
    num_steps, steps = self.feed.training.num_steps, self.strategy.num_steps
    last = self.num_tasks - 1
    if self.strategy.is_joint:
      return [Phase(0, 0, self.num_tasks * num_steps, last, True)]
    return [
      Phase(task, number, own or num_steps, task, number == len(steps) - 1)
      for task in range(self.num_tasks)
      for number, own in enumerate(steps)
    ]

  def _key(self, phase: Phase, seed: Any) -> jax.Array:
    key = jax.random.key(seed, impl=self.feed.training.prng)
    key = jax.random.fold_in(key, _TRAINING)
    number = phase.task * len(self.strategy.num_steps) + phase.number
    return jax.random.fold_in(key, number)

  def _batches(self, phase: Phase, seed: int, first_step: int, num_steps: int):
    task = None if self.strategy.is_joint else phase.task
    chunk = seed, first_step, num_steps
    yield self.feed.batches(task, phase.number, *chunk), num_steps

  def _begin(self, phase: Phase, seed: int, last: Any) -> base.State:
    """Returns the first state of a stage."""
    strategy, task = self.strategy, phase.task
    if task == phase.number == 0:
      last = self._start(np.uint32(seed))
    fresh = self._draw(np.uint32(seed), task)
    state, sets = strategy.start(last, fresh, task, phase.number)
    if not strategy.is_joint:
      own = self.feed.heads.masks(state.params, task)
      sets = sets._replace(backward=select_lib.put(sets.backward, own))
    opt_state = self.method.make(seed)[0].init(state.params)
    opt_state = packnet.with_sets(opt_state, sets)
    return self._place(
      state._replace(step=jnp.zeros([], jnp.int32), opt_state=opt_state)
    )

  def _finish(
    self, phase: Phase, seed: int, state: base.State
  ) -> tuple[base.State, list[base.Row]]:
    """Returns the state at the end of a stage, and the strategy's row."""
    strategy, task = self.strategy, phase.task
    state, row = strategy.finish(state, self.feed, seed, task, phase.number)
    if strategy.is_packed and phase.is_last_phase:
      found = self.feed.test(state, task)['fingerprint']
      fingerprints = state.net_state.fingerprints.at[task].set(found)
      state = strategies.replace(state, state.params, fingerprints=fingerprints)
    return self._place(state), [{'split': 'learned', **row}] if row else []

  def _validate(self, phase: Phase, state: base.State) -> dict[str, jax.Array]:
    params = sparsity.forward_weights(state.params, state.opt_state)
    metrics = self.feed.evaluate(
      params, state.net_state.statistics, phase.learned, 'validation'
    )
    return {name: metrics[name] for name in ('loss', 'accuracy')}

  def _report(
    self, phase: Phase, seed: int, state: base.State
  ) -> list[base.Row]:
    """Returns the final rows of a task; raises if one before is forgotten."""
    if not phase.is_last_phase:
      return []
    rows = []
    if phase.task == 0:
      network = self._draw(np.uint32(seed), 0)
      for task in range(self.num_tasks):
        metrics = self.feed.evaluate(*network, task, 'test')
        rows.append(_row('untrained', task, metrics))
    for task in self._tested(phase.learned):
      metrics = self.feed.test(state, task)
      rows.append(_row('test', task, metrics))
      if task < phase.learned and self.strategy.is_packed:
        self._check(task, state.net_state.fingerprints[task], metrics)
    if self.strategy.is_packed:
      for layer, shares in packnet.usage(state.net_state.memory.pack).items():
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
    params, statistics = self.feed.predict(state, task)
    masks = None
    if self.strategy.is_packed:
      masks = packnet.task_masks(state.net_state.memory.pack, task + 1)
    return self.method.to_weights(params), masks, statistics

  def _place(self, state: base.State) -> base.State:
    """Returns a state placed as the compiled steps expect it."""
    return jax.device_put(state, self._replicated)


def _row(split: str, task: int, metrics: dict[str, Any]) -> base.Row:
  shown = {name: float(metrics[name]) for name in ('loss', 'accuracy')}
  return {'split': split, 'tested': task + 1, **shown}
