"""The stages of continual learning: one for each phase of each task.

Rows of metrics, beside those of the trainer:

    split 'untrained'  accuracy on task `tested` before any training
    split 'test'       accuracy on task `tested`; on the next task too
    split 'learned'    the strategy's choice for the task
    split 'usage'      shares of the weights of each layer, and of all
"""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import mesh as mesh_lib
from experiments import methods
from experiments import state as state_lib
from experiments.models import heads as heads_lib
from experiments.tasks import base
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


class Setup(NamedTuple):
  """Everything that the stages share."""

  heads: heads_lib.Heads
  strategy: strategies.Strategy
  method: methods.Method
  training: base.Training
  testing: Testing
  num_tasks: int
  data: Callable[[], feed.Data]  # read at the first call
  # Compiled; a further task or seed compiles nothing.
  init: Callable[[Any], base.State]  # seed -> state before the first task
  draw: Callable[[Any, Any], strategies.Network]  # (seed, task) -> no memory
  predict: Callable[..., tuple[Any, Any]]  # (network, task) -> phi, statistics
  # (phi, statistics, task, views, examples, part) -> metrics
  evaluate_part: Callable[..., dict[str, jax.Array]]
  # (batch size, phi, statistics, inputs of a chunk) -> tree like theta
  fisher: Callable[..., Any]

  def evaluate(self, params, statistics, task: int, split: str):
    """Returns metrics on a task, with the fingerprint of the logits."""
    data = self.data()
    return self.evaluate_part(
      params,
      statistics,
      task,
      data.views,
      data.examples[split],
      data.parts[split][task],
    )

  def test(self, network: strategies.Network, task: int):
    """Returns test metrics of a task's own prediction."""
    return self.evaluate(*self.predict(network, task), task, 'test')

  def place(self, state: base.State) -> base.State:
    """Returns a state placed as the compiled steps expect it."""
    return jax.device_put(state, mesh_lib.replicated(self.training.mesh))


class Part(NamedTuple):
  """A phase of a task."""

  task: int  # from 0
  phase: int
  num_steps: int
  learned: int  # the last task that is learned at its end
  is_last_phase: bool


def make_setup(
  heads, strategy, method, training, testing, num_tasks, data, init
) -> Setup:
  """Returns the setup; `init`: from a key to theta and `NetState`."""
  jit = functools.partial(
    jax.jit, out_shardings=mesh_lib.replicated(training.mesh)
  )

  def draw(seed, task):
    key = jax.random.fold_in(jax.random.key(seed), task)
    weights, net_state = init(key)
    params = method.from_weights(weights)
    return strategies.Network(params, net_state.statistics, None)

  def evaluate(params, statistics, task, *args):
    weights = method.to_weights(params)

    def logits_of(images):
      return heads.apply(weights, statistics, None, images, False, task)[0]

    return evaluation.evaluate(logits_of, task, *args)

  def fisher(batch_size, params, statistics, inputs):
    batch = feed.batch_at(inputs, 0)

    def logits_of(weights, image):
      return heads.apply(
        weights, statistics, None, image[None], False, batch.task[0]
      )[0][0]

    return evaluation.fisher_diagonal(
      logits_of, method.to_weights(params), batch.inputs, batch_size=batch_size
    )

  return Setup(
    heads,
    strategy,
    method,
    training,
    testing,
    num_tasks,
    data,
    jit(lambda seed: state_lib.init_state(method, init, seed)),
    jit(draw),
    jit(strategy.predict),
    jit(evaluate),
    jit(fisher, static_argnums=0),
  )


def make_parts(setup: Setup) -> list[Part]:
  """Returns the phases of all tasks; all tasks at once are one."""
  num_steps, phases = setup.training.num_steps, setup.strategy.num_steps
  if setup.strategy.is_joint:
    num_tasks = setup.num_tasks
    return [Part(0, 0, num_tasks * num_steps, num_tasks - 1, True)]
  return [
    Part(task, phase, own or num_steps, task, phase == len(phases) - 1)
    for task in range(setup.num_tasks)
    for phase, own in enumerate(phases)
  ]


def make_stage(setup: Setup, part: Part, has_statistics: bool) -> base.Stage:
  """Returns the stage of a phase.

  Args:
    setup: shared by all stages.
    part: the phase.
    has_statistics: whether the network has batch statistics.
  """
  strategy, task = setup.strategy, part.task
  num_phases = len(strategy.num_steps)
  labels = {'task': part.learned + 1}
  if num_phases > 1:
    labels['phase'] = part.phase + 1

  def key(seed):
    key = jax.random.fold_in(jax.random.key(seed), _TRAINING)
    return jax.random.fold_in(key, task * num_phases + part.phase)

  def batches(seed, first_step, num_steps):
    data = setup.data()
    chosen = feed.choose_rows(
      data.rows,
      task=None if strategy.is_joint else task,
      seed=feed.order_seed(seed, task, part.phase),
      batch_size=setup.training.batch_size,
      first_step=first_step,
      num_steps=num_steps,
    )
    yield feed.chunk(data, setup.training.mesh, *chosen), num_steps

  def evaluate(state):
    params = sparsity.forward_weights(state.params, state.opt_state)
    metrics = setup.evaluate(
      params, state.net_state.statistics, part.learned, 'validation'
    )
    return {name: metrics[name] for name in ('loss', 'accuracy')}

  return base.Stage(
    num_steps=part.num_steps,
    labels=labels,
    begin=functools.partial(_begin, setup, part),
    batches=batches,
    evaluate=evaluate,
    finish=functools.partial(_finish, setup, part),
    report=functools.partial(_report, setup, part),
    key=key,
    is_training=not (strategy.keep_statistics and has_statistics and task),
  )


def make_export(setup: Setup, part: Part, step: int) -> base.Export:
  """Returns the network of the task that is learned at the end of a part."""

  def extract(state):
    network, task = _network(state), part.learned
    params, statistics = setup.strategy.predict(network, task)
    masks = None
    if setup.strategy.is_packed:
      masks = packnet.task_masks(network.memory.pack, task + 1)
    return setup.method.to_weights(params), masks, statistics

  return base.Export({'task': part.learned + 1}, step, extract)


def _network(state: base.State) -> strategies.Network:
  statistics, memory, _ = state.net_state
  return strategies.Network(state.params, statistics, memory)


def _begin(setup: Setup, part: Part, seed: int, last: Any) -> base.State:
  """Returns the first state of a stage."""
  strategy, heads, task = setup.strategy, setup.heads, part.task
  if task == part.phase == 0:
    last = setup.init(np.uint32(seed))
  network = _network(last)
  fresh = setup.draw(np.uint32(seed), task)._replace(memory=network.memory)
  network, sets = strategy.start(network, fresh, task, part.phase)
  if heads.are_per_task and not strategy.is_joint:
    own = heads.masks(network.params, task)
    sets = sets._replace(backward=select_lib.put(sets.backward, own))
  opt_state = last.opt_state
  if not strategy.keep_optimizer:
    opt_state = setup.method.make(seed)[0].init(network.params)
  return setup.place(
    base.State(
      jnp.zeros([], jnp.int32),
      network.params,
      NetState(network.statistics, network.memory, last.net_state.fingerprints),
      packnet.with_sets(opt_state, sets),
    )
  )


def _finish(
  setup: Setup, part: Part, seed: int, state: base.State
) -> tuple[base.State, list[base.Row]]:
  """Returns the state at the end of a stage, and the strategy's row."""
  task = part.task

  def fisher(network, num, batch_size):
    data = setup.data()
    chosen = feed.choose_rows(
      data.rows,
      task=task,
      seed=feed.order_seed(seed, task, 0),
      batch_size=num,
      first_step=0,
      num_steps=1,
    )
    inputs = data.examples['train'], data.views, *chosen
    return setup.fisher(batch_size, *network[:2], inputs)

  probe = strategies.Probe(
    setup.method.to_weights,
    lambda *args: setup.evaluate(*args, task, 'validation')['accuracy'],
    fisher,
    sparsity.active_sets(state.opt_state).backward,
  )
  network, row = setup.strategy.finish(_network(state), probe, task, part.phase)
  fingerprints = state.net_state.fingerprints
  if setup.strategy.is_packed and part.is_last_phase:
    found = setup.test(network, task)['fingerprint']
    fingerprints = fingerprints.at[task].set(found)
  state = state._replace(
    params=network.params,
    net_state=NetState(network.statistics, network.memory, fingerprints),
  )
  return setup.place(state), [{'split': 'learned', **row}] if row else []


def _report(
  setup: Setup, part: Part, seed: int, state: base.State
) -> list[base.Row]:
  """Returns the final rows of a task.

  Raises:
    ForgettingError: If logits that have to stay the same have changed.
  """
  if not part.is_last_phase:
    return []
  rows = []
  if part.task == 0:
    params, statistics, _ = setup.draw(np.uint32(seed), 0)
    rows += [
      _row('untrained', task, setup.evaluate(params, statistics, task, 'test'))
      for task in range(setup.num_tasks)
    ]
  learned, last = part.learned, setup.num_tasks - 1
  tested = {learned}
  if not setup.strategy.is_alone:
    tested.add(min(learned + 1, last))
    if (learned + 1) % setup.testing.every == 0 or learned == last:
      tested |= set(range(learned))
  network = _network(state)
  for task in sorted(tested):
    metrics = setup.test(network, task)
    rows.append(_row('test', task, metrics))
    if task < learned:
      _check(setup, task, metrics, state)
  if setup.strategy.is_packed:
    rows += [
      {'split': 'usage', 'layer': layer, **shares._asdict()}
      for layer, shares in packnet.usage(network.memory.pack).items()
    ]
  return rows


def _row(split: str, task: int, metrics: dict[str, Any]) -> base.Row:
  shown = {name: float(metrics[name]) for name in ('loss', 'accuracy')}
  return {'split': split, 'tested': task + 1, **shown}


def _check(setup: Setup, task: int, metrics, state: base.State) -> None:
  """Checks that a packed network has not forgotten an earlier task."""
  if not (setup.strategy.is_packed and setup.testing.check_forgetting):
    return
  before = int(state.net_state.fingerprints[task])
  now = int(metrics['fingerprint'])
  if now != before:
    raise ForgettingError(
      f'expected the test logits of task {task + 1} bit for bit as they were '
      f'at its end (fingerprint {before}), got others ({now}). Rounding may '
      'differ if this run was resumed on another device or with other '
      'versions: config.test.check_forgetting=False skips this check'
    )
