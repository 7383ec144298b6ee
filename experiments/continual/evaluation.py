"""Evaluation on any task: one program for all of them.

Shapes:
  T: number of tasks; B: examples of a batch; C: classes of a task.
  N: batches, as many as the task with the most has.
"""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.continual import penalty as penalty_lib
from experiments.continual import state as state_lib
from experiments.data import dataset
from experiments.data import views as views_lib
import powerprop

Figures = dict[str, jax.Array]


class Part(NamedTuple):
  """Which examples of a split a task has, in batches."""

  rows: jax.Array  # int32 [N, B]
  counts: jax.Array  # float32 [N, B], 0 for padding
  num: int  # batches that are not padding alone


def parts(rows: tuple[np.ndarray, ...], batch_size: int) -> list[Part]:
  """Returns the part of each task; tasks of the same rows share its arrays."""
  length = -(-max(map(len, rows)) // batch_size) * batch_size
  made: dict[int, Part] = {}
  for own in rows:
    if id(own) not in made:
      padded = np.pad(own, (0, length - len(own)))
      counts = (np.arange(length) < len(own)).astype(np.float32)
      made[id(own)] = Part(
        jnp.asarray(padded.reshape(-1, batch_size)),
        jnp.asarray(counts.reshape(-1, batch_size)),
        -(-len(own) // batch_size),
      )
  return [made[id(own)] for own in rows]


def evaluate(
  settings: state_lib.Settings,
  params: Any,
  net_state: Any,
  task: jax.Array,
  views: views_lib.Views,
  examples: dataset.Examples,
  part: Part,
) -> Figures:
  """Returns loss and accuracy on a task, and a fingerprint of its logits.

  Args:
    settings: how the network learns.
    params: phi, with which the task predicts.
    net_state: likewise.
    task: from 0, int32 [].
    views: of the stream.
    examples: all of the split, on the device.
    part: those of the task.
  """
  weights = powerprop.to_weights(params, settings.alpha)

  def body(n, totals):
    batch = jax.tree.map(lambda x: x[part.rows[n]], examples)
    inputs, labels = views_lib.see(views, task, batch)
    logits, _ = settings.heads.apply(
      weights, net_state, None, inputs, False, task
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    counts = part.counts[n]
    found = {
      'loss': jnp.sum(counts * losses),
      'accuracy': jnp.sum(counts * (jnp.argmax(logits, -1) == labels)),
      'fingerprint': fingerprint(logits, n * logits.size, counts),
    }
    return jax.tree.map(jnp.add, totals, found)

  start = {
    'loss': jnp.zeros([]),
    'accuracy': jnp.zeros([]),
    'fingerprint': jnp.zeros([], jnp.uint32),
  }
  totals = jax.lax.fori_loop(0, part.num, body, start)
  total = jnp.sum(part.counts)
  return totals | {name: totals[name] / total for name in ('loss', 'accuracy')}


def fingerprint(values: jax.Array, first: Any, counts: jax.Array) -> jax.Array:
  """Returns a uint32 that a change of any one bit of `values` changes.

  It is the sum of the bits of all, each times an odd number of its own; those
  of parts add up to that of the whole. Several changes cancel out by a chance
  of about one in four billion.

  Example:
    >>> values = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    >>> whole = fingerprint(values, 0, jnp.ones(2))
    >>> first = fingerprint(values[:1], 0, jnp.ones(1))
    >>> second = fingerprint(values[1:], 2, jnp.ones(1))
    >>> bool(whole == first + second)
    True

  Shapes:
    values: float32 [B, C]; counts: [B].

  Args:
    values: of which every bit counts.
    first: the number of the first of them among those of all parts.
    counts: 0 for rows that do not count.
  """
  bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
  number = jnp.arange(values.size, dtype=jnp.uint32).reshape(values.shape)
  odd = 2 * (number + jnp.asarray(first, jnp.uint32)) + 1
  return jnp.sum(jnp.where(counts[:, None] > 0, bits * odd, 0))


def fisher(
  settings: state_lib.Settings,
  batch_size: int,
  params: Any,
  net_state: Any,
  task: jax.Array,
  views: views_lib.Views,
  examples: dataset.Examples,
) -> Any:
  """Returns the diagonal of Fisher's information of theta on some examples."""
  heads = settings.heads

  def logits(weights, one):
    found, _ = heads.apply(weights, net_state, None, one[None], False, task)
    return found[0]

  return penalty_lib.fisher_diagonal(
    logits,
    powerprop.to_weights(params, settings.alpha),
    views_lib.see(views, task, examples).inputs,
    batch_size=batch_size,
  )
