"""What is compiled, once for all tasks: training, evaluation, Fisher's diagonal.

Shapes:
  T: number of tasks; S: steps of one call; B: examples of a batch.
  N: batches of an evaluation, padded to those of the task with the most.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.common import classification
from experiments.common import step as step_lib
from experiments.continual import penalty as penalty_lib
from experiments.continual import strategies
from experiments.data import dataset
from experiments.data import order
from experiments.data import tasks as tasks_lib
from experiments.models import heads as heads_lib
import powerprop
from powerprop import packnet
import sparsity

Figures = dict[str, jax.Array]

_TRAINING = 2**31 - 1  # of the key for training; those of tasks are below


class State(NamedTuple):
  """Everything that training changes, and so everything a checkpoint holds."""

  train: step_lib.TrainState
  memory: Any  # of the strategy
  fingerprints: jax.Array  # uint32 [T], of the test logits of tasks learned


class Batch(NamedTuple):
  """Some examples, each of its task."""

  examples: dataset.Examples  # as they are in the data set
  task: jax.Array  # int32 [], or [B]


class Settings(NamedTuple):
  """How a network is trained, whatever the task."""

  heads: heads_lib.Heads
  strategy: strategies.Strategy
  optimizer: optax.GradientTransformationExtraArgs  # from `packnet.freeze`
  alpha: float
  label_smoothing: float
  batch_size: int
  eval_batch_size: int


class Learner(NamedTuple):
  """Functions of one stream of tasks and one way to train, compiled."""

  draw: Callable[[int, int], strategies.Network]  # (seed, task), no memory
  # (state, seed, task, phase, first_step, num_steps) -> state, figures
  train: Callable[..., tuple[State, Figures]]
  # (params, net_state, task, 'validation' | 'test') -> figures, with the
  # 'fingerprint' of the logits: uint32, of which every bit of each counts.
  evaluate: Callable[..., Figures]
  predict: Callable[[strategies.Network, int], tuple[Any, Any]]
  # (params, net_state, seed, task, num, batch_size) -> a tree like the weights
  fisher: Callable[..., Any]


def network_of(state: State) -> strategies.Network:
  """Returns the network in a state, with what the strategy remembers."""
  return strategies.Network(
    state.train.params, state.train.net_state, state.memory
  )


def make_learner(tasks: tasks_lib.Tasks, settings: Settings) -> Learner:
  """Returns the compiled functions; data are put on the device once."""
  heads, strategy = settings.heads, settings.strategy
  views = tasks_lib.views(tasks)
  splits = {
    name: jax.device_put(getattr(tasks.examples, name))
    for name in tasks_lib.SPLITS
  }
  parts = {
    name: _evaluation_parts(tasks, name, settings.eval_batch_size)
    for name in ('validation', 'test')
  }

  @jax.jit
  def draw(seed, task):
    key = jax.random.fold_in(jax.random.key(seed), task)
    weights, net_state = heads.init(key, tasks.examples.train.inputs[:1])
    params = powerprop.from_weights(weights, settings.alpha)
    return strategies.Network(params, net_state, ())

  def train_steps(state, memory, seed, phase, chosen, examples, views, frozen):
    objective = _make_objective(settings, tasks, views, memory, frozen)
    recipe = _make_recipe(settings, objective)
    key = jax.random.fold_in(jax.random.key(seed), _TRAINING)
    key = jax.random.fold_in(key, phase)

    def body(state, now):
      rows, task = now
      batch = Batch(jax.tree.map(lambda x: x[rows], examples), task)
      step_key = jax.random.fold_in(key, state.step)
      return step_lib.train_step(recipe, state, batch, step_key)

    state, metrics = jax.lax.scan(body, state, chosen)
    return state, step_lib.summarize(recipe, state, metrics)

  train_steps = jax.jit(train_steps, donate_argnums=0, static_argnums=7)

  def train(state, seed, task, phase, first_step, num_steps):
    chosen = _choose(
      tasks, strategy.trains, settings.batch_size, seed, task, phase,
      first_step, num_steps,
    )  # fmt: skip
    is_frozen = (
      task > 0
      and strategy.keeps_statistics
      and bool(jax.tree.leaves(state.train.net_state))
    )
    number = task * len(strategy.phases) + phase
    trained, metrics = train_steps(
      state.train, state.memory, seed, number, chosen, splits['train'], views,
      is_frozen,
    )  # fmt: skip
    return state._replace(train=trained), metrics

  evaluate_all = jax.jit(_make_evaluate(settings))

  def evaluate(params, net_state, task, split):
    rows, counts, num = (x[task] for x in parts[split])
    return evaluate_all(
      params, net_state, task, views, splits[split], rows, counts, num
    )

  def fisher(params, net_state, task, examples, batch_size):
    seen = tasks_lib.see(views, task, examples)

    def logits(weights, one):
      found, _ = heads.apply(
        weights, net_state, None, one[None], False, task
      )
      return found[0]

    weights = powerprop.to_weights(params, settings.alpha)
    return penalty_lib.fisher_diagonal(
      logits, weights, seen.inputs, batch_size=batch_size
    )

  fisher_all = jax.jit(fisher, static_argnums=4)

  def fisher_of(params, net_state, seed, task, num, batch_size):
    own = tasks.tasks[task].rows['train']
    chosen = own[
      order.batch_indices(_order_seed(seed, task, 0), 0, 1, num, len(own))[0]
    ]
    examples = jax.tree.map(lambda x: x[chosen], tasks.examples.train)
    return fisher_all(params, net_state, task, examples, batch_size)

  return Learner(draw, train, evaluate, jax.jit(strategy.predict), fisher_of)


def begin(
  learner: Learner,
  settings: Settings,
  state: State | None,
  *,
  seed: int,
  task: int,
  phase: int,
  num_tasks: int,
) -> State:
  """Returns the state before the first step of a phase of a task.

  Args:
    learner: what is compiled.
    settings: how the network is trained.
    state: the last one before; what it holds does not matter to the first phase
      of the first task, and may be None then.
    seed: of the member.
    task: from 0.
    phase: from 0.
    num_tasks: T.
  """
  strategy = settings.strategy
  fresh = learner.draw(seed, task)
  is_first = task == phase == 0
  if is_first:
    memory = strategy.init(fresh.params, fresh.net_state)
    network = fresh._replace(memory=memory)
    fingerprints = jnp.zeros(num_tasks, jnp.uint32)
  else:
    network, fingerprints = network_of(state), state.fingerprints
  fresh = fresh._replace(memory=network.memory)
  network, sets = strategy.phases[phase].start(network, fresh, task)
  if strategy.keeps_optimizer and not is_first:
    opt_state = state.train.opt_state
  else:
    opt_state = settings.optimizer.init(network.params)
  opt_state = packnet.with_sets(opt_state, sets)
  train = step_lib.TrainState(
    jnp.zeros([], jnp.int32), network.params, network.net_state, opt_state
  )
  return State(train, network.memory, fingerprints)


def fingerprint(values: jax.Array, first: Any, counts: jax.Array) -> jax.Array:
  """Returns a uint32 that any change of a bit of `values` changes.

  A sum of the bits of all, each times an odd number of its own; the sums over
  parts add up to that over the whole.

  Shapes:
    values: float32 [B, C]; first: the number of the first value, over all parts
    of them; counts: [B], 0 for what does not count.
  """
  bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
  number = jnp.arange(values.size, dtype=jnp.uint32).reshape(values.shape)
  odd = 2 * (number + jnp.asarray(first, jnp.uint32)) + 1
  return jnp.sum(jnp.where(counts[:, None] > 0, bits * odd, 0))


def _make_recipe(settings: Settings, objective) -> step_lib.Recipe:
  alpha = settings.alpha
  return step_lib.Recipe(
    settings.heads.init,
    objective,
    lambda phi: powerprop.to_weights(phi, alpha),
    lambda theta: powerprop.from_weights(theta, alpha),
    sparsity.forward_weights,
    _density,
    settings.optimizer,
  )


def _make_objective(settings, tasks, views, memory, keeps_statistics):
  """Returns the objective; as in `classification`, with a penalty."""
  strategy, augment = settings.strategy, tasks.examples.augment

  def network_apply(weights, net_state, key, seen, is_training, task):
    return settings.heads.apply(
      weights,
      net_state,
      key,
      seen,
      is_training and not keeps_statistics,
      task,
    )

  def objective(weights, net_state, key, batch, is_training):
    inputs, labels = tasks_lib.see(views, batch.task, batch.examples)
    network = _Applied(
      lambda *args: network_apply(*args, batch.task)
    )
    plain = classification.make_objective(
      network=network,
      augment=augment,
      label_smoothing=settings.label_smoothing,
    )
    loss, aux = plain(
      weights, net_state, key, step_lib.Batch(inputs, labels), is_training
    )
    if strategy.penalty is not None:
      loss += strategy.penalty(weights, memory)
    return loss, aux

  return objective


class _Applied(NamedTuple):
  apply: Callable[..., Any]


def _make_evaluate(settings: Settings):
  def evaluate(params, net_state, task, views, split, rows, counts, num):
    weights = powerprop.to_weights(params, settings.alpha)

    def body(n, totals):
      examples = jax.tree.map(lambda x: x[rows[n]], split)
      inputs, labels = tasks_lib.see(views, task, examples)
      logits, _ = settings.heads.apply(
        weights, net_state, None, inputs, False, task
      )
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      found = {
        'loss': jnp.sum(counts[n] * losses),
        'accuracy': jnp.sum(counts[n] * (jnp.argmax(logits, -1) == labels)),
        'fingerprint': fingerprint(logits, n * logits.size, counts[n]),
      }
      return jax.tree.map(jnp.add, totals, found)

    zero = jnp.zeros([])
    start = {
      'loss': zero, 'accuracy': zero, 'fingerprint': jnp.zeros([], jnp.uint32),
    }  # fmt: skip
    totals = jax.lax.fori_loop(0, num, body, start)
    total = jnp.sum(counts)
    return totals | {
      name: totals[name] / total for name in ('loss', 'accuracy')
    }

  return evaluate


def _evaluation_parts(tasks, split: str, batch_size: int):
  """Returns rows [T, N, B], their counts, and how many batches are not empty.

  A view on one array where all tasks have the same rows.
  """
  own = [task.rows[split] for task in tasks.tasks]
  length = -(-max(map(len, own)) // batch_size) * batch_size
  made: dict[int, Any] = {}
  for rows in own:
    if id(rows) not in made:
      padding = (0, length - len(rows))
      padded = (
        np.pad(rows, padding), np.pad(np.ones(len(rows), np.float32), padding)
      )  # fmt: skip
      made[id(rows)] = jax.device_put(
        tuple(x.reshape(-1, batch_size) for x in padded)
      )
  all_rows, all_counts = zip(*(made[id(rows)] for rows in own), strict=True)
  return all_rows, all_counts, [-(-len(rows) // batch_size) for rows in own]


def _choose(
  tasks, trains, batch_size, seed, task, phase, first_step, num_steps
):
  """Returns which rows each step sees [S, B], and the task of each."""
  order_seed = _order_seed(seed, task, phase)
  own = [t.rows['train'] for t in tasks.tasks]
  if trains == 'one':
    indices = order.batch_indices(
      order_seed, first_step, num_steps, batch_size, len(own[task])
    )
    return own[task][indices], np.full(num_steps, task, np.int32)
  indices = order.batch_indices(
    order_seed, first_step, num_steps, batch_size, sum(map(len, own))
  )
  ends = np.cumsum([len(rows) for rows in own])
  of_task = np.searchsorted(ends, indices, 'right').astype(np.int32)
  rows = np.concatenate(own)[indices]
  return rows, of_task


def _order_seed(seed: int, task: int, phase: int) -> int:
  """Returns a seed of its own for the batches of each phase of each task."""
  sequence = np.random.SeedSequence([seed, task, phase])
  return int(sequence.generate_state(1)[0])


def _density(opt_state):
  forward = sparsity.active_sets(opt_state).forward
  weights = sparsity.select.selected_paths(forward, sparsity.is_weight)
  return sparsity.density(weights)
