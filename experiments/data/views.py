"""Tasks as views of one data set: some of its classes, its pixels reordered.

A view is a few small arrays, so tasks share the examples in memory and one
compiled step.

T: number of tasks; B: examples of a batch; D: entries of one input.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import dataset


class Task(NamedTuple):
  """One task: its classes and the order of its pixels."""

  classes: tuple[int, ...]  # of the data set; the i-th is label i of the task
  source: np.ndarray | None  # int32 [D]: pixel i is source[i] of the input


class Views(NamedTuple):
  """The views of all tasks, stacked."""

  source: jax.Array | None  # int32 [T, D]
  labels: jax.Array  # int32 [T, classes of the data set]


def make_views(tasks: Sequence[Task], num_classes: int) -> Views:
  """Returns the stacked views of tasks; all have a source, or none.

  `num_classes` is that of the data set.
  """
  sources = [task.source for task in tasks]
  labels = np.zeros((len(tasks), num_classes), np.int32)
  for row, task in zip(labels, tasks, strict=True):
    row[list(task.classes)] = np.arange(len(task.classes))
  return Views(
    None if sources[0] is None else jnp.stack(sources), jnp.asarray(labels)
  )


def see(
  views: Views, task: jax.Array, examples: dataset.Examples
) -> dataset.Examples:
  """Returns examples of the data set as examples of a task, on the device.

  Shapes:
    task: int [], or [B] with a task for each example; from 0.
    examples: [B, ...] and [B]; the result has the same shapes.
  """
  inputs, labels = examples
  labels = views.labels[task, labels]
  if views.source is None:
    return dataset.Examples(inputs, labels)
  flat = jnp.reshape(inputs, (inputs.shape[0], -1))  # [B, D]
  source = views.source[task]  # [D] or [B, D]
  if source.ndim == 1:
    seen = flat.at[:, source[None]].get(mode='clip')[:, 0]
  else:
    seen = jnp.take_along_axis(flat, source, 1, mode='clip')
  return dataset.Examples(jnp.reshape(seen, inputs.shape), labels)
