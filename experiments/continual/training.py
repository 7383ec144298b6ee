"""Training steps on any task: one program for all of them.

Shapes:
  S: steps of one call; B: examples of a batch.
"""

from typing import Any
from typing import NamedTuple

import haiku as hk
import jax
import numpy as np

from experiments.common import classification
from experiments.common import step as step_lib
from experiments.continual import state as state_lib
from experiments.data import dataset
from experiments.data import order
from experiments.data import views as views_lib
import powerprop
import sparsity

_TRAINING = 2**31 - 1  # of the key for training; those of tasks are below


class Batch(NamedTuple):
  """Some examples, as they are in the data set."""

  examples: dataset.Examples
  task: jax.Array  # int32 [], or [B]: by which task each is seen


def train_steps(
  settings: state_lib.Settings,
  keeps_statistics: bool,
  state: step_lib.TrainState,
  memory: Any,
  seed: Any,
  phase: Any,
  examples: dataset.Examples,
  views: views_lib.Views,
  chosen: tuple[jax.Array, jax.Array],
) -> tuple[step_lib.TrainState, step_lib.Metrics]:
  """Returns the state after some steps, and their figures.

  Args:
    settings: how the network learns.
    keeps_statistics: whether normalization is as in evaluation.
    state: before the steps.
    memory: of the strategy.
    seed: of the network.
    phase: counted over all tasks, for random keys.
    examples: all for training, on the device.
    views: of the stream.
    chosen: from `choose`.
  """
  recipe = make_recipe(settings, views, memory, keeps_statistics)
  key = jax.random.fold_in(jax.random.key(seed), _TRAINING)
  key = jax.random.fold_in(key, phase)

  def body(state, now):
    rows, task = now
    batch = Batch(jax.tree.map(lambda x: x[rows], examples), task)
    step_key = jax.random.fold_in(key, state.step)
    return step_lib.train_step(recipe, state, batch, step_key)

  state, metrics = jax.lax.scan(body, state, chosen)
  return state, step_lib.summarize(recipe, state, metrics)


def make_recipe(
  settings: state_lib.Settings,
  views: views_lib.Views,
  memory: Any,
  keeps_statistics: bool,
) -> step_lib.Recipe:
  """Returns how a network is trained with the memory of a strategy."""
  heads, alpha = settings.heads, settings.alpha
  penalty = settings.strategy.penalty

  def objective(weights, net_state, key, batch, is_training):
    def apply(weights, net_state, key, inputs, is_training):
      uses_batch = is_training and not keeps_statistics
      return heads.apply(
        weights, net_state, key, inputs, uses_batch, batch.task
      )

    plain = classification.make_objective(
      network=hk.TransformedWithState(heads.init, apply),
      augment=settings.stream.augment,
      label_smoothing=settings.label_smoothing,
    )
    seen = views_lib.see(views, batch.task, batch.examples)
    loss, rest = plain(
      weights, net_state, key, step_lib.Batch(*seen), is_training
    )
    return loss + (penalty(weights, memory) if penalty else 0), rest

  return step_lib.Recipe(
    heads.init,
    objective,
    lambda phi: powerprop.to_weights(phi, alpha),
    lambda theta: powerprop.from_weights(theta, alpha),
    sparsity.forward_weights,
    lambda _, state: sparsity.density(masks(state)),
    lambda _, state: masks(state),
    settings.optimizer,
    skips=settings.skips,
  )


def masks(opt_state: Any) -> dict[str, jax.Array]:
  """Returns by path the masks of the weights that a network is trained with."""
  forward = sparsity.active_sets(opt_state).forward
  return sparsity.select.selected_paths(forward, sparsity.is_weight)


def choose(
  rows: tuple[np.ndarray, ...],
  *,
  task: int | None,
  order_seed: int,
  batch_size: int,
  first_step: int,
  num_steps: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns which examples each step sees, and by which task.

  Shapes:
    returned: int32 [S, B] and [S], or [S, B] twice for all tasks.

  Args:
    rows: of each task, which examples it has.
    task: from 0; None: all tasks at once.
    order_seed: of the order; see `experiments.data.order`.
    batch_size: B.
    first_step: of the phase.
    num_steps: S.
  """
  own = rows if task is None else [rows[task]]
  indices = order.batch_indices(
    order_seed, first_step, num_steps, batch_size, sum(map(len, own))
  )
  if task is not None:
    return rows[task][indices], np.full(num_steps, task, np.int32)
  ends = np.cumsum([len(r) for r in rows])
  of_task = np.searchsorted(ends, indices, 'right')
  within = indices - (ends - [len(r) for r in rows])[of_task]
  found = np.zeros_like(indices)
  for number, r in enumerate(rows):
    is_own = of_task == number
    found[is_own] = r[within[is_own]]
  return found, of_task.astype(np.int32)


def order_seed(seed: int, task: int, phase: int) -> int:
  """Returns a seed for the batches of each phase of each task."""
  sequence = np.random.SeedSequence([seed, task, phase])
  return int(sequence.generate_state(1)[0])
