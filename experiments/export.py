"""A trained network as one safetensors file for other programs.

  python -m experiments.export --workdir=DIR --out=FILE [--task=N] [--step=N]

`weights/PATH` is theta, zero outside the forward set; `masks/PATH` the forward
set of each sparse layer; `state/PATH` batch statistics and the like. The header
holds the config, the labels of the network and its densities. Loading runs no
code from the file.
"""

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import sys
from typing import Any
from typing import NamedTuple
import zlib

from absl import logging
import jax
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from experiments import checkpoint
from experiments import rundir
from experiments.tasks import table
import sparsity

FORMAT = 2
KINDS = ('weights', 'masks', 'state')
USER_ERROR = 2  # exit code


class Network(NamedTuple):
  """A trained network; arrays by module and name, as Haiku has them."""

  weights: Any  # theta, zero outside the forward set
  masks: Any  # forward sets; None or empty if dense
  state: Any  # such as batch statistics
  config: dict[str, Any]  # of the run
  labels: dict[str, int]  # among the networks of the run, such as {'task': 2}


def save(path: str | os.PathLike[str], network: Network) -> None:
  """Writes a network, atomically; masks without zeros are left out."""
  masks = _flatten(network.masks or {})
  masks = {path: x for path, x in masks.items() if not x.all()}
  header = {
    'format': FORMAT,
    'config': network.config,
    'labels': network.labels,
    'densities': {path: float(x.mean()) for path, x in masks.items()},
  }
  parts = _flatten(network.weights), masks, _flatten(network.state)
  tensors = {
    f'{kind}/{path}': np.ascontiguousarray(x)
    for kind, part in zip(KINDS, parts, strict=True)
    for path, x in part.items()
  }
  text = rundir.to_json(header)
  described = {'sparse-training': text, 'crc32': checksum(text, tensors)}
  content = safetensors_numpy.save(tensors, described)
  rundir.write_bytes(path, content)


def load(path: str | os.PathLike[str]) -> Network:
  """Returns the network that `save` wrote; ValueError for any other file."""
  try:
    with safetensors.safe_open(os.fspath(path), 'numpy') as file:
      # `safe_open` has compared the tensors' sizes with the file's.
      described = file.metadata() or {}
      header = json.loads(described['sparse-training'])
      if header['format'] != FORMAT:
        raise ValueError(
          f'expected format {FORMAT}, got {header["format"]!r:.80}: export it '
          'again with this version'
        )
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if described['crc32'] != checksum(described['sparse-training'], tensors):
      raise ValueError('the checksum of its content differs from the saved one')
    parts = {kind: {} for kind in KINDS}
    for name, x in tensors.items():
      kind, _, path_in_tree = name.partition('/')
      parts[kind][path_in_tree] = x
    for name, mask in parts['masks'].items():
      if mask.dtype != bool or mask.shape != parts['weights'][name].shape:
        raise ValueError(f'expected a mask of the shape of its weight {name}')
      if mask.mean() != header['densities'][name]:
        raise ValueError(f'expected a mask of the density in the header {name}')
    return Network(
      *(_unflatten(parts[kind]) for kind in KINDS),
      header['config'],
      header['labels'],
    )
  except (
    AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError,
    safetensors.SafetensorError,
  ) as error:  # fmt: skip
    raise ValueError(
      f'expected an exported network in {path}, but: '
      f'{type(error).__name__}: {error}'
    ) from error


def checksum(text: str, tensors: dict[str, np.ndarray]) -> str:
  """Returns the CRC-32 of the header and all names, types and values."""
  value = zlib.crc32(text.encode())
  for name, x in sorted(tensors.items()):
    value = zlib.crc32(f'{name} {x.dtype} {x.shape}'.encode(), value)
    value = zlib.crc32(np.ascontiguousarray(x).reshape(-1).view('u1'), value)
  return str(value)


def extract(
  workdir: str | os.PathLike[str],
  task: int | None = None,
  step: int | None = None,
) -> Network:
  """Returns a network of a run, by default the last.

  `task` is that of continual learning, from 1; `step` the global step of a
  checkpoint, None the end of the task's training.
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
  return Network(*network, config, export.labels)


def _flatten(tree: Any) -> dict[str, np.ndarray]:
  leaves = sparsity.select.named_leaves(tree)
  return {sparsity.select.join(*path): np.asarray(x) for *path, x in leaves}


def _unflatten(flat: dict[str, np.ndarray]) -> dict[str, dict]:
  tree = {}
  for path, x in flat.items():
    module, _, name = path.rpartition('/')
    tree.setdefault(module, {})[name] = x
  return tree


def main(arguments: Sequence[str]) -> int:
  """Runs the command, and returns the exit code."""
  logging.set_verbosity(logging.ERROR)
  parser = argparse.ArgumentParser(
    'python -m experiments.export',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--workdir', type=rundir.user_path, required=True, help='run folder'
  )
  parser.add_argument('--out', required=True, help='file to write')
  parser.add_argument('--task', type=int, help='of continual learning, from 1')
  parser.add_argument('--step', type=int, help='global step of a checkpoint')
  given = parser.parse_args(arguments)
  try:
    out = rundir.out_file(given.out)
    save(out, extract(given.workdir, given.task, given.step))
  except (ValueError, OSError) as error:
    print(f'experiments.export: {error}', file=sys.stderr)
    return USER_ERROR
  print(f'Written to {given.out}')
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
