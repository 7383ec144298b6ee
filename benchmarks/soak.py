"""A long run: memory, files and speed over time.

  python -m benchmarks.soak --minutes=30 [--config=FILE] [--record=DIR]
      [--config.section.key=value ...]

Runs launch.py with a practically endless config (one network, refresh every
100 steps, evaluation and a save every 1,000) and samples its resident memory,
its files and its step every few seconds. At the end SIGTERM has to save. The
growth is a least-squares slope over the second half, after buffers have filled.
Needs /proc. Overrides are those of launch.py.
"""

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

from benchmarks import record

REPOSITORY = pathlib.Path(__file__).parent.parent
ENDLESS = [
  '--config.seeds=(0,)',
  '--config.powerprop.alphas=(1.0,)',
  '--config.train.num_steps=1000000000',
  '--config.train.log_every=500',
  '--config.train.eval_every=1000',
  '--config.train.checkpoint_every=1000',
]
MIB = 2**20
EVERY = 2.0  # seconds between samples


class Sample(NamedTuple):
  """The process and its folder at one moment."""

  seconds: float  # since the first step was saved
  step: int  # that is saved
  memory: float  # MiB, resident
  files: int
  folders: int  # of checkpoints


def main(arguments: Sequence[str]) -> int:
  """Runs the soak; returns 0 if SIGTERM made it save."""
  parser = argparse.ArgumentParser(
    'python -m benchmarks.soak', description=__doc__, allow_abbrev=False
  )
  parser.add_argument('--minutes', type=float, default=30.0)
  parser.add_argument('--config', default='configs/mnist_topkast.py')
  parser.add_argument('--record', metavar='DIR', help='keep the values here')
  given, overrides = parser.parse_known_args(arguments)
  with tempfile.TemporaryDirectory(prefix='soak-') as temporary:
    workdir = pathlib.Path(temporary) / 'run'
    command = [f'--config={given.config}', f'--workdir={workdir}']
    log = pathlib.Path(temporary) / 'log'
    with log.open('w') as output:
      process = subprocess.Popen(
        [sys.executable, 'launch.py', *command, *ENDLESS, *overrides],
        cwd=REPOSITORY,
        stdout=output,
        stderr=subprocess.STDOUT,
      )
    try:
      samples = watch(process, workdir, 60 * given.minutes)
      process.send_signal(signal.SIGTERM)
      code = process.wait(120)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
      print(log.read_text(), error, sep='\n', file=sys.stderr)
      return 1
    finally:
      process.kill()
      process.wait()
  figures = record.Record('soak', arguments)
  summarize(figures, given.config, samples)
  figures.write(given.record)
  print(f'exit code after SIGTERM: {code}')
  return int(code != 128 + signal.SIGTERM)


def watch(process, workdir, seconds: float) -> list[Sample]:
  """Returns samples of a process, from its first checkpoint on.

  Raises:
    RuntimeError: If it ends.
  """
  samples, start = [], None
  while start is None or time.monotonic() - start < seconds:
    time.sleep(EVERY)
    if process.poll() is not None:
      raise RuntimeError(f'expected it to run on, got exit {process.poll()}')
    step = saved_step(workdir)
    if step and start is None:
      start = time.monotonic()
    if step:
      now = time.monotonic() - start
      samples.append(Sample(now, step, memory(process.pid), *usage(workdir)))
  return samples


def summarize(figures, case: str, samples: Sequence[Sample]) -> None:
  """Records memory, files and speed."""
  half = samples[len(samples) // 2 :]
  first, middle, last = samples[0], half[0], samples[-1]
  seconds = [s.seconds for s in half]
  slope = np.polyfit(seconds, [s.memory for s in half], 1)[0] * 3600
  folders = [s.folders for s in samples]
  quarters = np.array_split(np.arange(len(samples)), 4)
  speeds = [speed(samples[part[0]], samples[part[-1]]) for part in quarters]
  for figure, value, unit in (
    ('minutes', last.seconds / 60, 'min'),
    ('steps', last.step, ''),
    ('memory at first', first.memory, 'MiB'),
    ('memory half way', middle.memory, 'MiB'),
    ('memory at last', last.memory, 'MiB'),
    ('growth', slope, 'MiB/h'),
    ('fewest checkpoints', min(folders), ''),
    ('most checkpoints', max(folders), ''),
    ('most files', max(s.files for s in samples), ''),
    *((f'speed in quarter {i}', x, 'steps/s') for i, x in enumerate(speeds, 1)),
  ):
    figures.add(case, figure, value, unit)


def speed(first: Sample, last: Sample) -> float:
  """Returns steps a second, of what is saved."""
  return (last.step - first.step) / max(last.seconds - first.seconds, 1e-9)


def saved_step(workdir: pathlib.Path) -> int:
  """Returns the step of the newest checkpoint; 0 if there is none."""
  try:
    status = json.loads((workdir / 'status.json').read_text())
  except FileNotFoundError:
    return 0
  return status.get('step', 0)


def memory(pid: int | str) -> float:
  """Returns the resident memory of a process, in MiB."""
  pages = pathlib.Path(f'/proc/{pid}/statm').read_text().split()[1]
  return int(pages) * os.sysconf('SC_PAGESIZE') / MIB


def usage(workdir: pathlib.Path) -> tuple[int, int]:
  """Returns the numbers of files and of checkpoints in a folder."""
  num = sum(len(names) for _, _, names in os.walk(workdir))
  return num, sum(p.name.isdigit() for p in (workdir / 'checkpoints').iterdir())


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
