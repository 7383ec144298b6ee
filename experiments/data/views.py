"""How a task sees a data set: which of its classes, from which of its pixels.

What makes examples of the data set examples of a task are small arrays, so that
a hundred tasks take the memory of one, and one compiled step serves all.

Shapes:
  T: number of tasks; B: examples of a batch; D: entries of one input.
  K: entries of which one entry of a task's input is made.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import dataset


class Pixels(NamedTuple):
  """From which entries of an input a task makes its own."""

  source: np.ndarray  # int32 [K, D]
  weight: np.ndarray | None  # float32 [K, D]; None: K is 1 and the weight too


class Task(NamedTuple):
  """One task: which classes it has, and how their examples are seen."""

  classes: tuple[int, ...]  # of the data set; label i of the task is the i-th
  pixels: Pixels | None  # None: inputs as they are


class Views(NamedTuple):
  """What makes examples of the data set examples of a task, for all tasks."""

  source: jax.Array | None  # int32 [T, K, D]
  weight: jax.Array | None  # float32 [T, K, D]
  labels: jax.Array  # int32 [T, classes of the data set]


def rotation(side: int, degrees: float) -> Pixels:
  """Returns a square image's rotation about its center, counterclockwise.

  Interpolated between the four pixels about a point; what comes from outside
  of the image is 0.

  Example:
    >>> quarter = rotation(2, 90.0)
    >>> image = np.arange(4.0)
    >>> (image[quarter.source] * quarter.weight).sum(0).reshape(2, 2).round(3)
    array([[1., 3.],
           [0., 2.]])
  """
  angle, center = np.deg2rad(degrees), (side - 1) / 2
  row, column = np.mgrid[:side, :side].reshape(2, -1) - center
  from_row = np.sin(angle) * column + np.cos(angle) * row + center
  from_column = np.cos(angle) * column - np.sin(angle) * row + center
  sources, weights = [], []
  for down in (0, 1):
    for right in (0, 1):
      r = np.floor(from_row).astype(int) + down
      c = np.floor(from_column).astype(int) + right
      weight = (1 - np.abs(from_row - r)) * (1 - np.abs(from_column - c))
      is_inside = (r >= 0) & (r < side) & (c >= 0) & (c < side)
      sources.append(np.where(is_inside, r * side + c, 0))
      weights.append(np.where(is_inside, weight, 0))
  return Pixels(np.array(sources, np.int32), np.array(weights, np.float32))


def make_views(tasks: Sequence[Task], num_classes: int) -> Views:
  """Returns what `see` needs of tasks, stacked over them.

  Args:
    tasks: all of them have pixels, or none.
    num_classes: of the data set.
  """
  source = weight = None
  pixels = [task.pixels for task in tasks]
  if any(p is not None for p in pixels):
    source = jnp.stack([p.source for p in pixels])
    if pixels[0].weight is not None:
      weight = jnp.stack([p.weight for p in pixels])
  labels = np.zeros((len(tasks), num_classes), np.int32)
  for row, task in zip(labels, tasks, strict=True):
    row[list(task.classes)] = np.arange(len(task.classes))
  return Views(source, weight, jnp.asarray(labels))


def see(
  views: Views, task: jax.Array, examples: dataset.Examples
) -> dataset.Examples:
  """Returns examples of the data set as a task has them, on the device.

  Shapes:
    task: int [], or [B] where each example is of another task; from 0.
    examples: [B, ...] and [B]; the result has the same shapes.
  """
  inputs, labels = examples
  table = views.labels[task]
  if table.ndim == 2:
    labels = jnp.take_along_axis(table, labels[:, None], 1)[:, 0]
  else:
    labels = table[labels]
  if views.source is None:
    return dataset.Examples(inputs, labels)
  flat = jnp.reshape(inputs, (inputs.shape[0], 1, -1))  # [B, 1, D]
  source = views.source[task]  # [K, D], [B, K, D]
  if source.ndim == 2:
    seen = flat[:, 0].at[:, source].get(mode='clip')  # [B, K, D]
  else:
    seen = jnp.take_along_axis(flat, source, 2, mode='clip')
  if views.weight is not None:
    weight = views.weight[task]
    seen = seen * (weight if weight.ndim == 3 else weight[None])
  seen = seen[:, 0] if seen.shape[1] == 1 else jnp.sum(seen, 1)
  return dataset.Examples(jnp.reshape(seen, inputs.shape), labels)
