"""Evaluation of a language model on a whole text, with its own memory."""

from collections.abc import Callable
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import language_plan as plan_lib
from experiments.common import distributed
from experiments.data import segments

FETCH_EVERY = 64  # segments that are on their way to the device at most


def make_loss(plan: plan_lib.Plan) -> Callable[[Any, np.ndarray], float]:
  """Returns the function (weights, tokens) -> mean of -log p, in nats.

  Every token but the first is predicted once, in order, from the memory of all
  before it that the evaluation's lengths allow. The result does not depend on
  the batch size: see `segments.evaluation_batches`.
  """
  model, shape, mesh = plan.evaluated, plan.evaluation, plan.training.mesh
  over_data = distributed.over_data(mesh)
  replicated = distributed.replicated(mesh)
  num_warm_up = segments.warm_up(
    plan.num_layers, shape.memory_len, shape.segment_len
  )

  def step(memory, weights, part):
    nll, memory = model.apply(
      weights,
      plan_lib.forget(memory, part.is_first),
      None,
      part.inputs,
      part.targets,
      False,
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
    # Sums of segments are added in float64: a split has millions of tokens.
    while some := list(itertools.islice(batches, FETCH_EVERY)):
      sums = []
      for part in some:
        part = distributed.to_devices(part, over_data)
        memory, nll = step(memory, weights, part)
        sums.append(nll)
      total += float(np.sum(np.array(jax.device_get(sums), np.float64)))
    return total / (len(tokens) - 1)

  return loss


def figures(loss: Any, unit: str) -> dict[str, Any]:
  """Returns a loss as it is customary: bits per character, or perplexity.

  Example:
    >>> figures(math.log(2), 'byte')
    {'loss': 0.6931471805599453, 'bits_per_character': 1.0}

  Args:
    loss: in nats, a number or an array.
    unit: 'byte' or 'word'.
  """
  if unit == 'byte':
    return {'loss': loss, 'bits_per_character': loss / math.log(2)}
  exp = math.exp if isinstance(loss, float) else jnp.exp
  return {'loss': loss, 'perplexity': exp(loss)}
