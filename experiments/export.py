"""A trained network as one file, for other programs.

  python -m experiments.export --workdir=DIR --out=FILE \
      [--member=alpha=2,seed=0] [--step=N] [--compact]

The file is in the format safetensors: `weights/PATH`, theta, zero where the
network does not see an entry; `masks/PATH`, which entries it sees; and
`state/PATH`, batch statistics and the like. With --compact a sparse layer has
in place of the first two `values/PATH`, the entries that the network sees, and
`places/PATH`, where they are in the flattened weight. The header names the
densities, the shapes of compact layers, the config and the member. Reading it
runs no code. No data are needed.
"""

import argparse
from collections.abc import Callable
from collections.abc import Sequence
import json
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

from experiments.common import build
from experiments.common import checkpoint
from experiments.common import run as run_lib
from experiments.common import storage as storage_lib
import sparsity

FORMAT = 1
KINDS = ('weights', 'masks', 'state', 'values', 'places')

Tree = dict[str, dict[str, np.ndarray]]  # by module, then by name


class Trained(NamedTuple):
  """A member of a run, and where its checkpoint is."""

  member: dict[str, Any]
  position: int  # global step of its last state
  like: Any  # shapes of what the checkpoint holds
  # What the checkpoint holds -> theta as seen, masks or None, network's state.
  extract: Callable[[Any], tuple[Any, Any, Any]]
  storage: storage_lib.Storage = storage_lib.MASKED  # of the checkpoint


class Exported(NamedTuple):
  """What a file holds."""

  weights: Tree
  masks: Tree  # of the sparse layers
  state: Tree
  header: dict[str, Any]  # 'config', 'member', 'densities'


def save(
  path: str | os.PathLike[str],
  weights: Any,
  masks: Any,
  state: Any,
  *,
  config: Any,
  member: dict[str, Any],
  compact: bool = False,
) -> None:
  """Writes a network, all of it or nothing.

  Args:
    path: of the file.
    weights: theta, as Haiku has it: arrays by module and name.
    masks: a tree of booleans like it; None if all is dense.
    state: the network's state, arrays by module and name.
    config: plain data.
    member: such as {'alpha': 2.0, 'seed': 0}.
    compact: whether of sparse layers only what the network sees is written.
  """
  flat = _flatten(weights)
  flat_masks = {
    path: mask
    for path, mask in (_flatten(masks) if masks else {}).items()
    if not mask.all()
  }
  header = {
    'format': FORMAT,
    'config': config,
    'member': member,
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
  content = safetensors_numpy.save(tensors, {'sparse-training': _json(header)})
  run_lib.write_bytes(path, content)


def load(path: str | os.PathLike[str]) -> Exported:
  """Returns what `save` wrote.

  Raises:
    ValueError: If the file is not one that `save` wrote.
  """
  try:
    with safetensors.safe_open(os.fspath(path), 'numpy') as file:
      header = json.loads((file.metadata() or {})['sparse-training'])
      format_there = header['format']
      names = list(file.keys())
      # Its sizes are checked against that of the file before this.
      tensors = {name: file.get_tensor(name) for name in names}
  except (
    OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError,
  ) as error:  # fmt: skip
    raise ValueError(
      f'expected an exported network in {path}, but it is none: {error}'
    ) from error
  if format_there != FORMAT:
    raise ValueError(
      f'expected format {FORMAT} in {path}, got {format_there}: export it '
      'with this version'
    )
  if others := {name.partition('/')[0] for name in names} - {*KINDS}:
    raise ValueError(
      f'expected tensors of the kinds {KINDS} in {path}, got {sorted(others)}'
    )
  parts: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in KINDS}
  for name, x in tensors.items():
    kind, _, path_in_tree = name.partition('/')
    parts[kind][path_in_tree] = x
  for path, at in parts['places'].items():
    x = parts['values'][path]
    for kind, dtype, seen in (('weights', x.dtype, x), ('masks', bool, True)):
      dense = np.zeros(header['shapes'][path], dtype)
      dense.flat[at] = seen
      parts[kind][path] = dense
  trees = [_unflatten(parts[kind]) for kind in KINDS[:3]]
  return Exported(*trees, header)


def export(
  trained: Sequence[Trained],
  workdir: pathlib.Path,
  out: str | os.PathLike[str],
  *,
  member: str | None,
  step: int | None,
  compact: bool = False,
) -> dict[str, Any]:
  """Writes one member of a run; returns which.

  Args:
    trained: the members of the run.
    workdir: its folder.
    out: the file.
    member: such as 'alpha=2,seed=0'; None if there is only one.
    step: global step of the checkpoint; None: after the member's last step.
    compact: see `save`.

  Raises:
    ValueError: If there is no such member, or no such checkpoint.
  """
  chosen = choose(trained, member)
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints', None)
  state, _ = checkpoints.restore(
    chosen.like, chosen.position if step is None else step
  )
  save(
    out,
    *jax.device_get(chosen.extract(state)),
    config=run_lib.read_json(workdir / 'config.json'),
    member=chosen.member,
    compact=compact,
  )
  return chosen.member


def choose(trained: Sequence[Trained], member: str | None) -> Trained:
  """Returns the one network that 'alpha=2,seed=0' names.

  Raises:
    ValueError: If it names none, or several.
  """
  wanted = dict(
    part.partition('=')[::2] for part in (member or '').split(',') if part
  )
  found = [
    one
    for one in trained
    if all(_is(one.member, key, value) for key, value in wanted.items())
  ]
  if len(found) != 1:
    listing = '\n  '.join(
      ','.join(f'{key}={value:g}' for key, value in one.member.items())
      for one in trained
    )
    raise ValueError(
      f'expected --member to name one network, but {member!r} fits '
      f'{len(found)} of:\n  {listing}'
    )
  return found[0]


def _is(member: dict[str, Any], key: str, value: str) -> bool:
  try:
    return key in member and float(value) == float(member[key])
  except ValueError:
    return False


def _flatten(tree: Any) -> dict[str, np.ndarray]:
  return {
    sparsity.select.join(module, name): np.asarray(x)
    for module, name, x in sparsity.select.named_leaves(tree)
  }


def _unflatten(flat: dict[str, np.ndarray]) -> Tree:
  tree: Tree = {}
  for path, x in flat.items():
    module, _, name = path.rpartition('/')
    tree.setdefault(module, {})[name] = x
  return tree


def _places(mask: np.ndarray) -> np.ndarray:
  places = np.flatnonzero(mask)
  return places.astype(np.int32 if mask.size < 2**31 else np.int64)


def _json(value: Any) -> str:
  return run_lib.to_json(value)


def main(arguments: Sequence[str], modules: dict[str, Any]) -> int:
  """Runs the command; `modules` are the experiments by name."""
  logging.set_verbosity(logging.WARNING)
  parser = argparse.ArgumentParser(
    'python -m experiments.export',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--workdir', required=True, help='folder of the run')
  parser.add_argument('--out', required=True, help='file to write')
  parser.add_argument('--member', help='which network, as alpha=2,seed=0')
  parser.add_argument('--step', type=int, help='global step of a checkpoint')
  parser.add_argument(
    '--compact', action='store_true', help='write what is not zero alone'
  )
  given = parser.parse_args(arguments)
  workdir = pathlib.Path(given.workdir)
  try:
    config = run_lib.read_json(workdir / 'config.json')
    table = {name: module.trained for name, module in modules.items()}
    members = build.build(table, config, key='experiment')
    member = export(
      members,
      workdir,
      given.out,
      member=given.member,
      step=given.step,
      compact=given.compact,
    )
  except (ValueError, OSError) as error:
    print(f'experiments.export: {error}', file=sys.stderr)
    return 2
  print(f'Written {member} to {given.out}')
  return 0


if __name__ == '__main__':
  from experiments import table

  sys.exit(main(sys.argv[1:], table.EXPERIMENTS))
