"""Loss, accuracy and fingerprint of the logits on a task; Fisher information.

N: examples; B: examples of a batch; C: classes of a task.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from experiments import mesh as mesh_lib
from experiments.data import tasks as tasks_lib
from experiments.models import heads as heads_lib
from experiments.tasks import classification
from experiments.tasks.continual import feed


class Evaluator:
  """Measurements of networks on tasks; one program serves all tasks."""

  def __init__(
    self,
    heads: heads_lib.Heads,
    # (state, task) -> phi and statistics with which the task predicts
    predict: Callable[[Any, Any], tuple[Any, Any]],
    to_weights: Callable[[Any], Any],  # phi -> theta
    mesh: jax.sharding.Mesh,
    data: Callable[[], feed.Data],  # reads them at the first call
  ):
    self.heads, self.to_weights, self.data = heads, to_weights, data
    jit = functools.partial(jax.jit, out_shardings=mesh_lib.replicated(mesh))
    self.predict = jit(predict)
    self._evaluate = jit(functools.partial(_evaluate, heads, to_weights))
    self._fisher = jit(
      functools.partial(_fisher, heads, to_weights), static_argnums=0
    )

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
    chosen = feed.choose_rows(data.rows, task, 0, seed, 0, 1, num_examples)
    inputs = data.examples['train'], data.views, *chosen
    statistics = state.net_state.statistics
    return self._fisher(batch_size, state.params, statistics, task, inputs)


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
    return heads.apply(weights, statistics, None, image[None], False, task)[0][
      0
    ]

  images = feed.batch_at(inputs, 0).inputs
  return fisher_diagonal(
    logits_of, to_weights(params), images, batch_size=batch_size
  )


def fingerprint(values: jax.Array, first: Any, counts: jax.Array) -> jax.Array:
  """Returns a uint32 that changes with any single bit of `values`.

  The bits of each value are multiplied by an odd number of its own and added
  up, so that the fingerprints of parts add up to that of the whole. Several
  changes cancel out with a probability of about one in four billion.

  Args:
    values: float32 [B, C], of one part.
    first: index of its first value among the values of all parts.
    counts: [B], 0 for rows that are left out.
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

  This is the squared gradient of the log-likelihood, averaged over examples,
  and in expectation over the labels that the network itself predicts. The
  expectation is exact: one gradient for each class. `logits_of` maps weights
  and one input to logits [C].

  Args:
    inputs: [N, ...].
    batch_size: B, a divisor of N; B times C gradients are in memory at once.

  Reference:
    Kirkpatrick et al., 2016, "Overcoming catastrophic forgetting in neural
    networks". https://arxiv.org/abs/1612.00796
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
