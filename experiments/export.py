"""A trained network as one file for other programs.

  python -m experiments.export --workdir=DIR --out=FILE \
      [--task=N] [--step=N] [--compact]

The file is in the safetensors format: `weights/PATH`, theta, zero outside the
forward set; `masks/PATH`, the forward set of each sparse layer; `state/PATH`,
batch statistics and the like. With --compact a sparse layer has `values/PATH`,
its active entries, and `places/PATH`, their indices into the flattened weight,
in place of the first two. The header holds the config, the labels of the
network, the densities, and the shapes of compact layers. Loading runs no code
from the file.
"""

import argparse
from collections.abc import Sequence
import json
import math
import os
import pathlib
import sys
from typing import Any
from typing import NamedTuple

from absl import logging
import jax
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from experiments import checkpoint
from experiments import rundir
from experiments.tasks import base
from experiments.tasks import table
import sparsity

FORMAT = 2
KINDS = ('weights', 'masks', 'state', 'values', 'places')
KEYS = ('format', 'config', 'labels', 'densities', 'shapes')  # of the header
# Largest ratio of unpacked layers to the file: a forged shape in its header
# must not exhaust memory.
MAX_EXPANSION = 256
USER_ERROR = 2  # exit code

Tree = dict[str, dict[str, np.ndarray]]  # by module, then by name
Flat = dict[str, np.ndarray]  # by path


class Exported(NamedTuple):
  """The content of a file."""

  weights: Tree
  masks: Tree  # of the sparse layers
  state: Tree
  header: dict[str, Any]  # 'config', 'labels', 'densities'


class Extracted(NamedTuple):
  """A network of a run."""

  task: base.Task
  config: dict[str, Any]
  labels: dict[str, int]  # such as {'task': 2}
  weights: Any  # theta on the forward set
  masks: Any  # None if dense
  state: Any  # of the network


def save(
  path: str | os.PathLike[str],
  weights: Any,
  masks: Any,
  state: Any,
  *,
  config: dict[str, Any],
  labels: dict[str, int],
  compact: bool = False,
) -> None:
  """Writes a network, atomically.

  Args:
    path: of the file.
    weights: theta, arrays by module and name, as Haiku has it.
    masks: a tree of booleans like it; None if all layers are dense.
    state: the network's state, arrays by module and name.
    config: plain data.
    labels: of the network among those of its run, such as {'task': 2}.
    compact: True to write only the active entries of sparse layers.

  Raises:
    ValueError: If the network is too sparse for a compact file.
  """
  flat = _flatten(weights)
  flat_masks = _flatten(masks) if masks else {}
  flat_masks = {path: x for path, x in flat_masks.items() if not x.all()}
  header = {
    'format': FORMAT,
    'config': config,
    'labels': labels,
    'densities': {path: float(x.mean()) for path, x in flat_masks.items()},
    'shapes': {},
  }
  parts = {'weights': flat, 'masks': flat_masks, 'state': _flatten(state)}
  if compact:
    header['shapes'] = {path: x.shape for path, x in flat_masks.items()}
    places = {path: _places(x) for path, x in flat_masks.items()}
    parts |= {
      'weights': {path: x for path, x in flat.items() if path not in places},
      'masks': {},
      'values': {path: flat[path].ravel()[at] for path, at in places.items()},
      'places': places,
    }
  tensors = {
    f'{kind}/{path}': np.ascontiguousarray(x)
    for kind, part in parts.items()
    for path, x in part.items()
  }
  text = rundir.to_json(header)
  content = safetensors_numpy.save(tensors, {'sparse-training': text})
  if compact:
    _check_expansion(header['shapes'], parts['values'], len(content))
  rundir.write_bytes(path, content)


def load(path: str | os.PathLike[str]) -> Exported:
  """Returns the network that `save` wrote.

  Raises:
    ValueError: If the file is missing, altered or not written by `save`.
  """
  try:
    header, parts = _read(path)
    _unpack(parts, header['shapes'], os.path.getsize(path))
    _check_masks(parts, header['densities'])
  except (
    AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError,
    safetensors.SafetensorError,
  ) as error:  # fmt: skip
    raise ValueError(
      f'expected an exported network in {path}, but: '
      f'{type(error).__name__}: {error}'
    ) from error
  return Exported(*(_unflatten(parts[kind]) for kind in KINDS[:3]), header)


def extract(
  workdir: str | os.PathLike[str],
  task: int | None = None,
  step: int | None = None,
) -> Extracted:
  """Returns a network of a run.

  Args:
    workdir: the run folder.
    task: of continual learning, from 1; None: the last.
    step: global step of a checkpoint; None: the end of the task's training.

  Raises:
    ValueError: If there is no such run, task or checkpoint.
  """
  workdir = pathlib.Path(workdir)
  if not (workdir / 'config.json').exists():
    below = sorted(str(path.parent) for path in workdir.glob('*/config.json'))
    raise ValueError(
      f'expected a folder with config.json, got {workdir}'
      + '\n  '.join(['; choose one of:', *below] if below else [])
    )
  config = rundir.read_config(workdir)
  made = table.make_task(config)
  numbers = [export.labels.get('task') for export in made.exports]
  if task is not None and task not in numbers:
    raise ValueError(f'expected --task, one of {numbers}, got {task}')
  at = len(numbers) - 1 if task is None else numbers.index(task)
  export, first = made.exports[at], made.exports[at - 1].step if at else 0
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints', None)
  wanted = export.step if step is None else step
  steps = [number for number in checkpoints.steps() if number > first]
  if wanted not in steps:
    raise ValueError(
      f'expected --step, one of the checkpoints {steps} in {workdir}, got '
      f'{wanted}'
    )
  state, _ = checkpoints.restore(made.state, wanted)
  network = jax.device_get(export.extract(state))
  return Extracted(made, config, export.labels, *network)


def _read(path: str | os.PathLike[str]) -> tuple[dict, dict[str, Flat]]:
  """Returns the header, and the tensors by kind and path."""
  with safetensors.safe_open(os.fspath(path), 'numpy') as file:
    # Opening checks the tensors' sizes against the file's.
    header = json.loads((file.metadata() or {})['sparse-training'])
    if header['format'] != FORMAT:
      raise ValueError(
        f'expected format {FORMAT}, got {header["format"]!r:.80}: export it '
        'again with this version'
      )
    header = {key: header[key] for key in KEYS}
    parts: dict[str, Flat] = {kind: {} for kind in KINDS}
    for name in file.keys():  # noqa: SIM118
      kind, _, path_in_tree = name.partition('/')
      parts[kind][path_in_tree] = file.get_tensor(name)
  return header, parts


def _unpack(parts: dict[str, Flat], shapes: dict, num_bytes: int) -> None:
  """Adds weights and masks of compact layers to `parts`."""
  values, places = parts['values'], parts['places']
  if not shapes.keys() == values.keys() == places.keys():
    raise ValueError('expected a shape, values and places of each layer')
  for path, shape in shapes.items():
    is_twice = path in parts['weights'] or path in parts['masks']
    if is_twice or not all(type(n) is int and n > 0 for n in shape):
      raise ValueError(f'expected {path} once, of sizes over 0, got {shape}')
  _check_expansion(shapes, values, num_bytes)
  for path, shape in shapes.items():
    x, at, size = values[path], places[path], math.prod(shape)
    if x.ndim != 1 or at.shape != x.shape or at.dtype.kind != 'i':
      raise ValueError(f'expected an integer place of each value of {path}')
    if len(at) and (at[0] < 0 or at[-1] >= size or (at[1:] <= at[:-1]).any()):
      raise ValueError(f'expected ascending places below {size} of {path}')
    for kind, dtype, entries in (
      ('weights', x.dtype, x), ('masks', bool, True),
    ):  # fmt: skip
      parts[kind][path] = np.zeros(shape, dtype)
      parts[kind][path].flat[at] = entries


def _check_expansion(shapes: dict, values: Flat, num_bytes: int) -> None:
  sizes = {path: math.prod(shape) for path, shape in shapes.items()}
  needed = sum(n * (values[path].itemsize + 1) for path, n in sizes.items())
  if needed > MAX_EXPANSION * num_bytes:
    raise ValueError(
      f'expected layers of at most {MAX_EXPANSION} times the {num_bytes} bytes '
      f'of the compact file, got {needed}; export without --compact'
    )


def _check_masks(parts: dict[str, Flat], densities: dict) -> None:
  masks, weights = parts['masks'], parts['weights']
  for path, mask in masks.items():
    if mask.dtype != bool or mask.shape != weights[path].shape or not mask.size:
      raise ValueError(f'expected a mask of the shape of its weight {path}')
  found = {path: float(mask.mean()) for path, mask in masks.items()}
  if found != densities:
    raise ValueError(f'expected densities {found}, got {densities!r:.200}')


def _flatten(tree: Any) -> Flat:
  leaves = sparsity.select.named_leaves(tree)
  return {sparsity.select.join(*path): np.asarray(x) for *path, x in leaves}


def _unflatten(flat: Flat) -> Tree:
  tree: Tree = {}
  for path, x in flat.items():
    module, _, name = path.rpartition('/')
    tree.setdefault(module, {})[name] = x
  return tree


def _places(mask: np.ndarray) -> np.ndarray:
  places = np.flatnonzero(mask)
  return places.astype(np.int32 if mask.size < 2**31 else np.int64)


def main(arguments: Sequence[str]) -> int:
  """Runs the command, and returns the exit code."""
  logging.set_verbosity(logging.ERROR)
  parser = argparse.ArgumentParser(
    'python -m experiments.export',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--workdir', required=True, help='run folder')
  parser.add_argument('--out', required=True, help='file to write')
  parser.add_argument('--task', type=int, help='of continual learning, from 1')
  parser.add_argument('--step', type=int, help='global step of a checkpoint')
  parser.add_argument('--compact', action='store_true')
  given = parser.parse_args(arguments)
  try:
    network = extract(given.workdir, given.task, given.step)
    save(
      given.out,
      network.weights,
      network.masks,
      network.state,
      config=network.config,
      labels=network.labels,
      compact=given.compact,
    )
  except (ValueError, OSError) as error:
    print(f'experiments.export: {error}', file=sys.stderr)
    return USER_ERROR
  print(f'Written to {given.out}')
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
