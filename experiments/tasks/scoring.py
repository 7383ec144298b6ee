"""The loss of a language model on a whole text, with the evaluation's memory.

B: batch; T: tokens of a segment.
"""

from collections.abc import Callable
import itertools
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import mesh as mesh_lib
from experiments.data import segments
from experiments.models import transformer_xl

FETCH_EVERY = 64  # segments queued on the device at most


class Shape(NamedTuple):
  """The section `config.evaluation`."""

  batch_size: int
  segment_len: int
  memory_len: int
  clamp_len: int | None
  num_tokens: int | None  # the first tokens of a split; None: all


def forget(
  memory: transformer_xl.Memory, is_first: jax.Array
) -> transformer_xl.Memory:
  """Returns the memory, emptied in the rows where a new text begins."""
  return memory._replace(length=jnp.where(is_first, 0, memory.length))


def make_loss(
  model: transformer_xl.TransformerXL,
  shape: Shape,
  num_layers: int,
  mesh: jax.sharding.Mesh,
) -> Callable[[Any, np.ndarray], float]:
  """Returns the function (weights, tokens) -> mean of -log p, in nats.

  Every token but the first is predicted once, in order. The result does not
  depend on the batch size, see `segments.evaluation_batches`.
  """
  over_data = mesh_lib.over_data(mesh)
  replicated = mesh_lib.replicated(mesh)
  num_warm_up = segments.warm_up(
    num_layers, shape.memory_len, shape.segment_len
  )

  def step(memory, weights, part):
    memory = forget(memory, part.is_first)
    nll, memory = model.apply(
      weights, memory, None, part.inputs, part.targets, False
    )
    return memory, jnp.sum(part.weights * nll)

  step = jax.jit(step, donate_argnums=0, out_shardings=(over_data, replicated))
  empty = jax.jit(
    lambda: model.memory(shape.batch_size, shape.memory_len),
    out_shardings=over_data,
  )

  def loss(weights, tokens):
    tokens = tokens[: shape.num_tokens]
    batches = segments.evaluation_batches(
      tokens, shape.batch_size, shape.segment_len, num_warm_up
    )
    memory, total = empty(), 0.0
    # Sums in float64: a split has millions of tokens.
    while some := list(itertools.islice(batches, FETCH_EVERY)):
      sums = []
      for part in some:
        part = mesh_lib.to_devices(part, over_data)
        memory, nll = step(memory, weights, part)
        sums.append(nll)
      total += float(np.sum(np.array(jax.device_get(sums), np.float64)))
    return total / (len(tokens) - 1)

  return loss


def metrics(loss: float, unit: str) -> dict[str, Any]:
  """Returns a loss, in nats, with bits per byte or perplexity of words.

  Example:
    >>> metrics(math.log(2), 'byte')
    {'loss': 0.6931471805599453, 'bits_per_character': 1.0}
    >>> metrics(0.0, 'word')
    {'loss': 0.0, 'perplexity': 1.0}
  """
  if unit == 'byte':
    return {'loss': loss, 'bits_per_character': loss / math.log(2)}
  return {'loss': loss, 'perplexity': math.exp(loss)}
