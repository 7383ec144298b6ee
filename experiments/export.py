"""A trained network as one file, for other programs.

  python -m experiments.export --workdir=DIR --out=FILE \
      [--member=alpha=2,seed=0] [--step=N]

The file is in the format safetensors: `weights/PATH`, theta, zero where the
network does not see an entry; `masks/PATH`, which entries it sees; and
`state/PATH`, batch statistics and the like. Its header names the densities, the
config and the member. Reading it runs no code. No data are needed.
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
import sparsity

FORMAT = 1
KINDS = ('weights', 'masks', 'state')

Tree = dict[str, dict[str, np.ndarray]]  # by module, then by name


class Trained(NamedTuple):
  """A member of a run, and where its checkpoint is."""

  member: dict[str, Any]
  position: int  # global step of its last state
  like: Any  # shapes of what the checkpoint holds
  # What the checkpoint holds -> theta as seen, masks or None, network's state.
  extract: Callable[[Any], tuple[Any, Any, Any]]


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
) -> None:
  """Writes a network, all of it or nothing.

  Args:
    path: of the file.
    weights: theta, as Haiku has it: arrays by module and name.
    masks: a tree of booleans like it; None if all is dense.
    state: the network's state, arrays by module and name.
    config: plain data.
    member: such as {'alpha': 2.0, 'seed': 0}.
  """
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
  }
  parts = (_flatten(weights), flat_masks, _flatten(state))
  tensors = {
    f'{kind}/{path}': np.ascontiguousarray(x)
    for kind, part in zip(KINDS, parts, strict=True)
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
  trees: dict[str, Tree] = {kind: {} for kind in KINDS}
  for name, x in tensors.items():
    kind, _, path_in_tree = name.partition('/')
    module, _, leaf = path_in_tree.rpartition('/')
    trees[kind].setdefault(module, {})[leaf] = x
  return Exported(*trees.values(), header)


def export(
  trained: Sequence[Trained],
  workdir: pathlib.Path,
  out: str | os.PathLike[str],
  *,
  member: str | None,
  step: int | None,
) -> dict[str, Any]:
  """Writes one member of a run; returns which.

  Args:
    trained: the members of the run.
    workdir: its folder.
    out: the file.
    member: such as 'alpha=2,seed=0'; None if there is only one.
    step: global step of the checkpoint; None: after the member's last step.

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
  given = parser.parse_args(arguments)
  workdir = pathlib.Path(given.workdir)
  try:
    config = run_lib.read_json(workdir / 'config.json')
    table = {name: module.trained for name, module in modules.items()}
    members = build.build(table, config, key='experiment')
    member = export(
      members, workdir, given.out, member=given.member, step=given.step
    )
  except (ValueError, OSError) as error:
    print(f'experiments.export: {error}', file=sys.stderr)
    return 2
  print(f'Written {member} to {given.out}')
  return 0


if __name__ == '__main__':
  from experiments import table

  sys.exit(main(sys.argv[1:], table.EXPERIMENTS))
