"""A run with masked weights as one with compact weights, and back.

  python -m experiments.convert --workdir=DIR --out=NEW --storage=compact

Writes a new folder that `launch.py` goes on in, with the same config but for
`config.method.storage`: the checkpoints, converted, and the metrics so far. The
folder of the run stays as it is. No data are needed.

What no step can see is not kept: of sets that never change, entries outside of
them are zero when they come back from compact weights.
"""

import argparse
from collections.abc import Sequence
import pathlib
import shutil
import sys
from typing import Any

from absl import logging

from experiments import export
from experiments import language_modelling
from experiments.common import build
from experiments.common import checkpoint
from experiments.common import metrics
from experiments.common import run as run_lib
from experiments.common import storage as storage_lib

USER_ERROR = 2  # exit code
# Beside the checkpoints, what a run that goes on needs of the one before.
KEPT = (metrics.FILE, language_modelling.VOCABULARY)


def convert(
  modules: dict[str, Any],
  workdir: pathlib.Path,
  out: pathlib.Path,
  storage: str,
) -> list[int]:
  """Writes the folder of a run with other storage; returns the steps saved.

  Args:
    modules: the experiments by name.
    workdir: folder of the run.
    out: the new folder.
    storage: 'masked', 'masked_products' or 'compact'.

  Raises:
    ValueError: If there is no run, its method cannot be stored so or is so
      already, or `out` holds something.
  """
  config = run_lib.read_json(workdir / 'config.json')
  new_config = with_storage(config, storage)
  trained = _trained(modules, config)
  before, after = trained[0], _trained(modules, new_config)[0]
  if before.like.step.shape != after.like.step.shape:
    raise ValueError(
      'expected members one by one, but in one of the two runs they are side '
      "by side: set config.side_by_side='never'"
    )
  if out.exists() and any(out.iterdir()):
    raise ValueError(f'expected a new or empty folder, got {out}')
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints', 1)
  steps = checkpoints.steps()
  if not steps:
    raise ValueError(f'expected a checkpoint in {workdir}, got none')
  run_lib.open_run(out, new_config)
  for name in KEPT:
    if (workdir / name).exists():
      shutil.copy(workdir / name, out / name)
  new = checkpoint.Checkpoints(out / 'checkpoints', len(steps))
  for step in steps:
    state, metadata = checkpoints.restore(before.like, step)
    state = after.storage.pack(before.storage.unpack(state))
    is_last = any(step == one.position for one in trained)
    new.save(step, state, metadata, keep_always=is_last)
  return steps


def with_storage(config: dict[str, Any], storage: str) -> dict[str, Any]:
  """Returns a config with another `method.storage`.

  Raises:
    ValueError: If it has no such key, or that value already.
  """
  method = config.get('method')
  if not isinstance(method, dict) or 'storage' not in method:
    raise ValueError(
      'expected a run with config.method.storage, got one of '
      f'{config.get("experiment")!r} without'
    )
  if method['storage'] == storage:
    raise ValueError(f'expected another storage than {storage!r}, the run has')
  return {**config, 'method': {**method, 'storage': storage}}


def _trained(modules, config) -> list[export.Trained]:
  table = {name: module.trained for name, module in modules.items()}
  return build.build(table, config, key='experiment')


def main(arguments: Sequence[str], modules: dict[str, Any]) -> int:
  """Runs the command; `modules` are the experiments by name."""
  logging.set_verbosity(logging.WARNING)
  parser = argparse.ArgumentParser(
    'python -m experiments.convert',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--workdir', required=True, help='folder of the run')
  parser.add_argument('--out', required=True, help='new folder')
  parser.add_argument(
    '--storage', required=True, choices=tuple(storage_lib.STORAGES)
  )
  given = parser.parse_args(arguments)
  workdir, out = pathlib.Path(given.workdir), pathlib.Path(given.out)
  try:
    steps = convert(modules, workdir, out, given.storage)
  except (ValueError, OSError) as error:
    print(f'experiments.convert: {error}', file=sys.stderr)
    return USER_ERROR
  print(f'Written to {out}: checkpoints of the steps {steps}')
  return 0


if __name__ == '__main__':
  from experiments import table

  sys.exit(main(sys.argv[1:], table.EXPERIMENTS))
