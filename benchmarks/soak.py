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

import numpy as np
import pandas as pd

from benchmarks import record

REPOSITORY = pathlib.Path(__file__).parent.parent
ENDLESS = [
  '--config.seeds=(0,)',
  '--config.powerprop.alphas=(1.0,)',
  '--config.optimizer.learning_rate=0.1',
  '--config.train.num_steps=1000000000',
  '--config.train.log_every=500',
  '--config.train.eval_every=1000',
  '--config.train.checkpoint_every=1000',
]
MIB = 2**20
EVERY = 2.0  # seconds between samples
# Seconds since the first save, saved step, resident MiB, and contents of the
# folder.
COLUMNS = ('seconds', 'step', 'memory', 'files', 'checkpoints')


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


def watch(process, workdir, seconds: float) -> pd.DataFrame:
  """Returns samples of a process, from its first checkpoint on."""
  samples, start = [], None
  while start is None or time.monotonic() - start < seconds:
    time.sleep(EVERY)
    if process.poll() is not None:
      raise RuntimeError(f'expected it to run on, got exit {process.poll()}')
    if step := saved_step(workdir):
      start = start or time.monotonic()
      now = time.monotonic() - start
      samples.append((now, step, memory(process.pid), *usage(workdir)))
  return pd.DataFrame(samples, columns=COLUMNS)


def summarize(figures, case: str, samples: pd.DataFrame) -> None:
  """Records memory, files and speed."""
  half, last = samples[len(samples) // 2 :], samples.iloc[-1]
  slope = 3600 * np.polyfit(half.seconds, half.memory, 1)[0]
  quarters = samples.groupby(4 * samples.index // len(samples))
  spans = quarters.last() - quarters.first()
  speeds = spans.step / spans.seconds
  for figure, value, unit in (
    ('minutes', last.seconds / 60, 'min'),
    ('steps', last.step, ''),
    ('memory at first', samples.memory.iloc[0], 'MiB'),
    ('memory half way', half.memory.iloc[0], 'MiB'),
    ('memory at last', last.memory, 'MiB'),
    ('growth', slope, 'MiB/h'),
    ('fewest checkpoints', samples.checkpoints.min(), ''),
    ('most checkpoints', samples.checkpoints.max(), ''),
    ('most files', samples.files.max(), ''),
    *((f'speed in quarter {i + 1}', x, 'steps/s') for i, x in speeds.items()),
  ):
    figures.add(case, figure, value, unit)


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
