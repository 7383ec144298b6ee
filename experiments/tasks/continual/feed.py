"""A stream of tasks on the device: training batches and measurements.

T: tasks; S: steps of a chunk; N: batches of a split, or examples; B: examples
of a batch; C: classes of a task.
"""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import mesh as mesh_lib
from experiments.data import dataset
from experiments.data import tasks as tasks_lib
from experiments.models import heads as heads_lib
from experiments.tasks import classification


class Part(NamedTuple):
  """The rows of one task in a split, padded to the length of the longest."""

  rows: jax.Array  # int32 [N, B]
  counts: jax.Array  # float32 [N, B], 0 for padding
  num: jax.Array  # int32 [], batches that are not only padding


class Data(NamedTuple):
  """The data of a stream; all but `rows` on the devices."""

  rows: list[np.ndarray]  # of the training examples of each task
  views: tasks_lib.Views
  examples: dict[str, dataset.Examples]  # by split
  parts: dict[str, list[Part]]  # by split, of each task


class Feed:
  """Batches of the tasks of a stream, and measurements; one program for all."""

  def __init__(
    self,
    stream: tasks_lib.Stream,
    training: classification.Training,
    heads: heads_lib.Heads,
    # (state, task) -> phi and statistics with which the task predicts
    predict: Callable[[Any, Any], tuple[Any, Any]],
    to_weights: Callable[[Any], Any],  # phi -> theta
  ):
    self.training, self.heads, self.to_weights = training, heads, to_weights
    self.data = functools.cache(lambda: load(stream, training))
    replicated = mesh_lib.replicated(training.mesh)
    jit = functools.partial(jax.jit, out_shardings=replicated)
    self.predict = jit(predict)
    self._evaluate = jit(functools.partial(_evaluate, heads, to_weights))
    self._fisher = jit(
      functools.partial(_fisher, heads, to_weights), static_argnums=0
    )

  def batches(
    self, task: int | None, phase: int, seed: int, first_step: int, num: int
  ) -> Any:
    """Returns the inputs of a chunk: each device has its share of the rows."""
    data, mesh = self.data(), self.training.mesh
    rows, tasks = choose_rows(
      data.rows, task, phase, seed, first_step, num, self.training.batch_size
    )
    over_data = mesh_lib.over_data(mesh, 1)
    of_tasks = over_data if task is None else mesh_lib.replicated(mesh)
    placed = jax.device_put((rows, tasks), (over_data, of_tasks))
    return data.examples['train'], data.views, *placed

  def evaluate(
    self, params: Any, statistics: Any, task: int, split: str
  ) -> dict[str, jax.Array]:
    """Returns loss, accuracy and fingerprint of the logits on a task."""
    data = self.data()
    part = data.parts[split][task]
    return self._evaluate(
      params, statistics, task, data.views, data.examples[split], part
    )

  def test(self, state: Any, task: int) -> dict[str, jax.Array]:
    """Returns `evaluate` on a task's test data, as the strategy predicts."""
    return self.evaluate(*self.predict(state, task), task, 'test')

  def fisher(
    self, state: Any, seed: int, task: int, num_examples: int, batch_size: int
  ) -> Any:
    """Returns the Fisher diagonal of theta on some examples of a task."""
    data = self.data()
    chosen = choose_rows(data.rows, task, 0, seed, 0, 1, num_examples)
    inputs = data.examples['train'], data.views, *chosen
    statistics = state.net_state.statistics
    return self._fisher(batch_size, state.params, statistics, task, inputs)


def load(stream: tasks_lib.Stream, training: classification.Training) -> Data:
  """Returns the data of a stream, replicated on all devices."""
  examples, rows = tasks_lib.read(stream)
  parts = {
    name: _make_parts(rows[name], training.eval_batch_size)
    for name in ('validation', 'test')
  }
  placed = jax.device_put(
    (tasks_lib.make_views(stream), examples._asdict(), parts),
    mesh_lib.replicated(training.mesh),
  )
  return Data(rows['train'], *placed)


def choose_rows(
  rows: list[np.ndarray],
  task: int | None,
  phase: int,
  seed: int,
  first_step: int,
  num_steps: int,
  batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the rows [S, B] of the batches of some steps, and their tasks.

  The tasks are int32 [S]; [S, B] with task=None, for batches of all tasks
  shuffled together. Each phase of a task has an order of its own.
  """
  own = np.concatenate(rows) if task is None else rows[task]
  sequence = np.random.SeedSequence([seed, task or 0, phase])
  [order_seed] = sequence.generate_state(1)
  indices = dataset.batch_indices(
    int(order_seed), first_step, num_steps, batch_size, len(own)
  )
  if task is not None:
    return own[indices], np.full(num_steps, task, np.int32)
  numbers = np.arange(len(rows), dtype=np.int32)
  return own[indices], np.repeat(numbers, list(map(len, rows)))[indices]


def batch_at(inputs: Any, i: jax.Array) -> classification.Batch:
  """Returns batch `i` of a chunk."""
  examples, views, rows, tasks = inputs
  chosen = jax.tree.map(lambda x: x[rows[i]], examples)
  images, labels = tasks_lib.see(views, tasks[i], chosen)
  task = jnp.broadcast_to(tasks[i], labels.shape)
  return classification.Batch(images, labels, task)


def _make_parts(rows: list[np.ndarray], batch_size: int) -> list[Part]:
  length = -(-max(map(len, rows)) // batch_size) * batch_size

  def pad(own):
    padded = np.pad(own, (0, length - len(own)))
    counts = (np.arange(length) < len(own)).astype(np.float32)
    num = np.int32(-(-len(own) // batch_size))
    shape = (-1, batch_size)
    return Part(padded.reshape(shape), counts.reshape(shape), num)

  return [pad(own) for own in rows]


def _evaluate(
  heads, to_weights, params, statistics, task, views, examples, part
):
  weights = to_weights(params)

  def body(n, totals):
    batch = jax.tree.map(lambda x: x[part.rows[n]], examples)
    images, labels = tasks_lib.see(views, task, batch)
    logits, _ = heads.apply(weights, statistics, None, images, False, task)
    found = classification.totals(logits, labels, part.counts[n])
    found['fingerprint'] = fingerprint(logits, n * logits.size, part.counts[n])
    return jax.tree.map(jnp.add, totals, found)

  zeros = dict.fromkeys(('loss', 'accuracy', 'count'), jnp.zeros([]))
  zeros['fingerprint'] = jnp.zeros([], jnp.uint32)
  totals = jax.lax.fori_loop(0, part.num, body, zeros)
  return totals | classification.means(totals)


def _fisher(heads, to_weights, batch_size, params, statistics, task, inputs):
  def logits_of(weights, image):
    images = image[None]
    logits, _ = heads.apply(weights, statistics, None, images, False, task)
    return logits[0]

  images = batch_at(inputs, 0).inputs
  return fisher_diagonal(
    logits_of, to_weights(params), images, batch_size=batch_size
  )


def fingerprint(values: jax.Array, first: Any, counts: jax.Array) -> jax.Array:
  """Returns a uint32 that changes with any single bit of `values` [B, C].

  The bits of each value are multiplied by an odd number of its own and added
  up, so that the fingerprints of parts add up to that of the whole, in which a
  part begins at the value `first`. Rows whose count is 0 are left out.
  """
  bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
  index = jnp.arange(values.size, dtype=jnp.uint32).reshape(values.shape)
  odd = 2 * (index + jnp.asarray(first, jnp.uint32)) + 1
  return jnp.sum(jnp.where(counts[:, None] > 0, bits * odd, 0))


def fisher_diagonal(
  logits_of: Callable[[Any, jax.Array], jax.Array],
  weights: Any,
  inputs: jax.Array,
  *,
  batch_size: int,
) -> Any:
  """Returns the diagonal of the Fisher information of a classifier.

  This is the squared gradient of the log-likelihood, averaged over inputs
  [N, ...] and in expectation over the labels that the network itself predicts.
  The expectation is exact: one gradient for each class, of which `batch_size`
  times C are in memory at once. `logits_of` maps weights and one input to
  logits [C].
  """

  def log_likelihood(weights, example):
    return jax.nn.log_softmax(logits_of(weights, example))

  def of_example(example):
    gradients = jax.jacrev(log_likelihood)(weights, example)  # leaves [C, ...]
    likely = jnp.exp(log_likelihood(weights, example))
    return jax.tree.map(
      lambda x: jnp.tensordot(likely, jnp.square(x), 1), gradients
    )

  def body(total, batch):
    found = jax.vmap(of_example)(batch)
    return jax.tree.map(lambda t, x: t + jnp.sum(x, 0), total, found), None

  batches = jnp.reshape(inputs, (-1, batch_size, *inputs.shape[1:]))
  zeros = jax.tree.map(jnp.zeros_like, weights)
  total, _ = jax.lax.scan(body, zeros, batches)
  return jax.tree.map(lambda x: x / len(inputs), total)
