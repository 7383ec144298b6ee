"""A long run that is watched: memory, files and speed must stay as they are.

  python -m benchmarks.soak --minutes=30 [--config=FILE] [--workdir=DIR]
      [--record=DIR] [--config.section.key=value ...]

Trains as launch.py does, without end; sets are refreshed every 100 steps, and
every 1,000 steps the network is evaluated and saved. Every few seconds the
resident memory of the process, the files in its folder and its step are noted.
At the end it gets SIGTERM, and has to save. Slopes are of least squares over
the second half: before that buffers fill. Needs /proc, so Linux. Overrides say
how often all that happens, as for launch.py.
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
  '--config.train.num_steps=1000000000',
  '--config.train.log_every=500',
  '--config.train.eval_every=1000',
  '--config.train.checkpoint_every=1000',
]
MIB = 2**20


class Sample(NamedTuple):
  """What is seen at one moment."""

  seconds: float  # since the first step was saved
  step: int  # that is saved
  memory: float  # MiB, resident
  files: int
  folders: int  # of checkpoints
  size: float  # MiB of all files


def main(arguments: Sequence[str]) -> int:
  """Runs, prints what was seen, and returns 0 if SIGTERM made it save."""
  parser = argparse.ArgumentParser(
    'python -m benchmarks.soak', description=__doc__, allow_abbrev=False
  )
  parser.add_argument('--minutes', type=float, default=30.0)
  parser.add_argument('--every', type=float, default=2.0, help='seconds')
  parser.add_argument('--config', default='configs/mnist_topkast.py')
  parser.add_argument('--workdir', help='by default one that is removed')
  record.add_argument(parser)
  given, overrides = parser.parse_known_args(arguments)
  with tempfile.TemporaryDirectory(prefix='soak-') as temporary:
    workdir = pathlib.Path(given.workdir or f'{temporary}/run')
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
      samples = watch(process, workdir, 60 * given.minutes, given.every)
      process.send_signal(signal.SIGTERM)
      code = process.wait(120)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
      print(log.read_text(), error, sep='\n', file=sys.stderr)
      return 1
    finally:
      process.kill()
      process.wait()
  figures = record.Record('soak', arguments)
  keep(figures, given.config, samples)
  figures.write(given.record)
  return summarize(samples, code)


def watch(process, workdir, seconds: float, every: float) -> list[Sample]:
  """Returns samples of a process, from its first checkpoint on.

  Raises:
    RuntimeError: If it ends.
  """
  samples, start = [], None
  while start is None or time.monotonic() - start < seconds:
    time.sleep(every)
    if process.poll() is not None:
      raise RuntimeError(f'expected it to run on, got exit {process.poll()}')
    step = saved_step(workdir)
    if step and start is None:
      start = time.monotonic()
    if step:
      now = time.monotonic() - start
      samples.append(Sample(now, step, memory(process.pid), *usage(workdir)))
  return samples


def summarize(samples: Sequence[Sample], code: int) -> int:
  """Prints what was seen; returns 0 if SIGTERM made it save."""
  half = samples[len(samples) // 2 :]
  seconds = np.array([s.seconds for s in half])
  slope = np.polyfit(seconds, [s.memory for s in half], 1)[0] * 3600
  quarters = np.array_split(np.arange(len(samples)), 4)
  speeds = [speed(samples[part[0]], samples[part[-1]]) for part in quarters]
  first, middle, last = samples[0], half[0], samples[-1]
  folders = [s.folders for s in samples]
  files = [s.files for s in samples]
  print(
    f'{last.seconds / 60:.1f} minutes, {len(samples)} samples, steps '
    f'{first.step:,} to {last.step:,}; after SIGTERM exit code {code}',
    f'resident memory  {first.memory:.1f} MiB at first, {middle.memory:.1f} '
    f'half way, {last.memory:.1f} at last; {slope:+.2f} MiB an hour in the '
    'second half',
    f'files            {min(files)} to {max(files)}, of {min(folders)} to '
    f'{max(folders)} checkpoints; {first.size:.1f} MiB at first, '
    f'{last.size:.1f} at last',
    f'steps a second   {", ".join(f"{x:.1f}" for x in speeds)} (quarters)',
    sep='\n',
  )
  return int(code != 128 + signal.SIGTERM)


def keep(figures, case: str, samples: Sequence[Sample]) -> None:
  """Adds what was seen to the figures of a record."""
  half = samples[len(samples) // 2 :]
  first, middle, last = samples[0], half[0], samples[-1]
  seconds = [s.seconds for s in half]
  slope = np.polyfit(seconds, [s.memory for s in half], 1)[0] * 3600
  folders = [s.folders for s in samples]
  for figure, value, unit in (
    ('minutes', last.seconds / 60, 'min'),
    ('steps', last.step, ''),
    ('memory at first', first.memory, 'MiB'),
    ('memory half way', middle.memory, 'MiB'),
    ('memory at last', last.memory, 'MiB'),
    ('growth', slope, 'MiB/h'),
    ('fewest checkpoints', min(folders), ''),
    ('most checkpoints', max(folders), ''),
  ):
    figures.add(case, figure, value, unit)
  quarters = np.array_split(np.arange(len(samples)), 4)
  for i, part in enumerate(quarters, 1):
    pace = speed(samples[part[0]], samples[part[-1]])
    figures.add(case, f'speed in quarter {i}', pace, 'steps/s')


def speed(first: Sample, last: Sample) -> float:
  """Returns steps a second, of what is saved."""
  return (last.step - first.step) / max(last.seconds - first.seconds, 1e-9)


def saved_step(workdir: pathlib.Path) -> int:
  """Returns the step of the newest checkpoint; 0 if there is none."""
  try:
    status = json.loads((workdir / 'status.json').read_text())
  except FileNotFoundError:
    return 0
  return status.get('global_step', 0)


def memory(pid: int | str) -> float:
  """Returns the resident memory of a process, in MiB."""
  pages = pathlib.Path(f'/proc/{pid}/statm').read_text().split()[1]
  return int(pages) * os.sysconf('SC_PAGESIZE') / MIB


def usage(workdir: pathlib.Path) -> tuple[int, int, float]:
  """Returns files, folders of checkpoints, and MiB in a folder."""
  num, size = 0, 0
  for folder, _, names in os.walk(workdir):
    for name in names:
      try:
        size += os.stat(os.path.join(folder, name)).st_size
      except FileNotFoundError:  # removed meanwhile
        continue
      num += 1
  folders = sum(p.name.isdigit() for p in (workdir / 'checkpoints').iterdir())
  return num, folders, size / MIB


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
