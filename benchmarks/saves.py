"""What each checkpoint adds to the memory of a process.

  python -m benchmarks.saves [--num=2000] [--arrays=12] [--folder=DIR] [--plain]
      [--record=DIR]

Saves the same state again and again and prints, ten times, resident memory and
the objects that Python holds, after garbage collection. Slopes are of least
squares over the second half. --plain leaves Orbax as it is. Needs /proc, so
Linux. A folder in memory (/dev/shm) makes it fast.
"""

import argparse
from collections.abc import Sequence
import contextlib
import gc
import sys
import tempfile
import time
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from benchmarks import record
from benchmarks import soak
from experiments.common import checkpoint
from experiments.common import lean

SHAPE = (300, 100)


class Sample(NamedTuple):
  """What is held after some saves."""

  step: int
  kib: float
  objects: int


def main(arguments: Sequence[str]) -> None:
  """Saves, and prints what was seen."""
  parser = argparse.ArgumentParser(
    'python -m benchmarks.saves', description=__doc__, allow_abbrev=False
  )
  parser.add_argument('--num', type=int, default=2000)
  parser.add_argument('--arrays', type=int, default=12)
  parser.add_argument('--folder', help='on which disk')
  parser.add_argument('--plain', action='store_true')
  record.add_argument(parser)
  given = parser.parse_args(arguments)
  if given.plain:
    lean.lean = contextlib.nullcontext
  state = {f'w{i}': jnp.ones(SHAPE) for i in range(given.arrays)}
  start = time.process_time()
  with tempfile.TemporaryDirectory(dir=given.folder) as folder:
    samples = save(checkpoint.Checkpoints(folder, 2), state, given.num)
  seconds = time.process_time() - start
  half = samples[len(samples) // 2 :]
  steps = [s.step for s in half]
  kib = slope(steps, [s.kib for s in half])
  objects = slope(steps, [s.objects for s in half])
  milliseconds = 1e3 * seconds / given.num
  print(
    f'each save adds {kib:+.2f} KiB and {objects:+.2f} objects; it takes '
    f'{milliseconds:.1f} ms of the processor'
  )
  figures = record.Record('saves', arguments)
  case = 'Orbax as it is' if given.plain else 'saves'
  figures.add(case, 'number', given.num, '')
  figures.add(case, 'memory', kib, 'KiB')
  figures.add(case, 'objects', objects, '')
  figures.add(case, 'CPU time', milliseconds, 'ms')
  figures.write(given.record)


def save(checkpoints, state, num: int) -> list[Sample]:
  """Returns samples of `num` saves."""
  samples = []
  for step in range(1, num + 1):
    checkpoints.save(step, state, {'loss': 0.5})
    if step % max(1, num // 10) == 0:
      gc.collect()
      kib = 1024 * soak.memory('self')
      samples.append(Sample(step, kib, sys.getallocatedblocks()))
      print(
        f'{step:6,} saves {kib:10,.0f} KiB {samples[-1].objects:10,} objects'
      )
  return samples


def slope(steps: Sequence[int], values: Sequence[float]) -> float:
  """Returns the slope of the line of least squares."""
  return np.polyfit(steps, values, 1)[0]


if __name__ == '__main__':
  main(sys.argv[1:])
