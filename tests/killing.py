"""Runs of launch.py that are killed, in processes forked from one that waits.

That one has imported everything, which takes most of the time of a short run,
and read a small part of MNIST; JAX has not been used in it. What is forked runs
`launch.main` as the command does, but draws no plots, which would take half of
the time.
"""

import io
import json
import multiprocessing
import os
import pathlib
import resource
import signal
import socket
import sys
import threading
import time
from typing import Any
from typing import NamedTuple

from experiments import plots
from experiments.data import dataset
from experiments.data import mnist
from experiments.data import table
import launch

REPOSITORY = pathlib.Path(launch.__file__).parent
SMALL = [
  f'--config={REPOSITORY}/configs/mnist_topkast.py:quick',
  '--config.model.hidden=(8,)',
  '--config.powerprop.alphas=(2.0,)',
  '--config.method.refresh_every=3',
  '--config.optimizer.momentum=0.9',
  '--config.prune.num_levels=0',
  '--config.prune.output_layer=linear_1/w',
  '--config.train.batch_size=20',
  '--config.train.eval_batch_size=100',
  '--config.train.num_steps=40',
  '--config.train.log_every=5',
  '--config.train.eval_every=10',
  '--config.train.checkpoint_every=10',
]
COUNTED = (
  'open', 'os.mkdir', 'os.rename', 'os.remove', 'os.rmdir', 'os.truncate',
)  # fmt: skip


class Plan(NamedTuple):
  """What happens to a run, and when."""

  kill_at_file: int | None = None  # operation on a file of the run, from 1
  kill_at_save: int | None = None  # the same, on an unfinished checkpoint
  kill_after: float | None = None  # seconds after metrics are opened
  limit_at_status: int | None = None  # from the n-th one files are limited
  limit: str = ''  # 'metrics' cannot grow; 'save': no file can beyond 10 kB
  environment: dict[str, str] = {}  # noqa: RUF012
  clock: float = 0.0  # seconds by which the clock is wrong
  is_ascii: bool = False  # what is printed
  broken: int | None = None  # which image for training is NaN


class Ended(NamedTuple):
  """How a run ended."""

  code: int  # negative: by a signal
  output: str
  counts: dict[str, int]  # operations on files, if it ended by itself


def start(workdir: pathlib.Path, arguments=(), plan: Plan = Plan()):  # noqa: B008
  """Returns a process that runs launch.py, and where its output comes."""
  arguments = [*SMALL, *arguments, f'--workdir={workdir}']
  return call(_launch, arguments, plan)


def start_several(workdir: pathlib.Path, num: int, arguments=()):
  """Returns what `start` does for each of several processes of one run."""
  flags = [*arguments, f'--config.train.num_devices={num}']
  return [start(workdir, [*flags, *own]) for own in together(num)]


def together(num: int) -> list[list[str]]:
  """Returns the flags of each of several processes of one run."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  flags = [f'--coordinator=127.0.0.1:{port}', f'--process_count={num}']
  return [[*flags, f'--process_index={i}'] for i in range(num)]


def call(function, *args):
  """Returns a process that calls a function, and where its output comes."""
  context = _context()
  here, there = context.Pipe(duplex=False)
  process = context.Process(target=_child, args=(function, args, there))
  process.start()
  there.close()
  return process, here


def finish(started, seconds: float = 120) -> Ended:
  """Returns how a run that was started ended."""
  process, here = started
  process.join(seconds)
  if process.exitcode is None:
    process.kill()
    raise TimeoutError(f'no end within {seconds} s')
  with io.FileIO(os.dup(here.fileno())) as pipe:
    output = pipe.readall().decode()
  here.close()
  text, *counts = output.split('\0')
  text += counts[1] if counts else ''
  counts = json.loads(counts[0]) if counts else {}
  return Ended(process.exitcode, text, counts)


def run(workdir, arguments=(), plan: Plan = Plan()) -> Ended:  # noqa: B008
  """Returns how a run ended."""
  return finish(start(workdir, arguments, plan))


def _context() -> Any:
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['tests.killing'])
  return context


def serve(cache: pathlib.Path) -> None:
  """Starts the process that waits, with an environment of its own."""
  before = dict(os.environ)
  os.environ.update(
    PYTHONPATH=str(REPOSITORY),
    XLA_FLAGS='',
    JAX_COMPILATION_CACHE_DIR=str(cache),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
    FAST_RUNS='1',
  )
  try:
    _context()
    multiprocessing.forkserver.ensure_running()
  finally:
    os.environ.clear()
    os.environ.update(before)


def _child(function, args, there) -> None:
  for number in (1, 2):
    os.dup2(there.fileno(), number)
  sys.stdout = open(1, 'w', buffering=1, closefd=False)  # noqa: SIM115
  sys.stderr = open(2, 'w', buffering=1, closefd=False)  # noqa: SIM115
  function(*args)


def _launch(arguments, plan: Plan) -> None:
  os.environ.update(plan.environment)
  time.tzset()
  if plan.is_ascii:
    sys.stdout.reconfigure(encoding='ascii')
  if plan.clock:
    now = time.time
    time.time = lambda: now() + plan.clock
  if plan.broken is not None:
    data = table.DATA['mnist'](data_dir=None)
    data.train.inputs[plan.broken] = float('nan')
  watch = _Watch(plan)
  sys.addaudithook(watch.see)
  code = launch.main(arguments)
  watch.report()
  sys.exit(code)


class _Watch:
  """Counts what is done to files, and does what is planned."""

  def __init__(self, plan: Plan):
    self.plan = plan
    self.counts = {'file': 0, 'save': 0, 'status': 0}

  def see(self, event: str, args: tuple[Any, ...]) -> None:
    if event not in COUNTED or not isinstance(args[0], (str, os.PathLike)):
      return
    path = os.fspath(args[0])
    if isinstance(path, bytes) or '/run' not in path:
      return
    plan, counts = self.plan, self.counts
    counts['file'] += 1
    counts['save'] += 'checkpoint-tmp' in path
    counts['status'] += event == 'open' and '.status.json.' in path
    if counts['file'] == plan.kill_at_file:
      os.kill(os.getpid(), signal.SIGKILL)
    if 'checkpoint-tmp' in path and counts['save'] == plan.kill_at_save:
      os.kill(os.getpid(), signal.SIGKILL)
    if plan.kill_after is not None and path.endswith('metrics.jsonl'):
      threading.Thread(target=self.kill_soon, daemon=True).start()
    if counts['status'] == plan.limit_at_status:
      self.limit(pathlib.Path(path).parent)

  def kill_soon(self) -> None:
    time.sleep(self.plan.kill_after)
    os.kill(os.getpid(), signal.SIGKILL)

  def limit(self, workdir: pathlib.Path) -> None:
    size = 10_000
    if self.plan.limit == 'metrics':
      size = (workdir / 'metrics.jsonl').stat().st_size + 10
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

  def report(self) -> None:
    sys.stdout.flush()
    os.write(1, b'\0' + json.dumps(self.counts).encode() + b'\0')


def _part(examples: dataset.Examples, num: int) -> dataset.Examples:
  return dataset.Examples(examples.inputs[:num], examples.labels[:num])


def _make_fast() -> None:
  """Makes runs short, in this process and what is forked from it."""
  plots.draw_all = lambda rows, folder: []
  whole = mnist.load(data_dir=None)
  small = whole._replace(
    train=_part(whole.train, 600),
    validation=_part(whole.validation, 200),
    test=_part(whole.test, 200),
  )
  small = small._replace(
    **{
      name: dataset.Examples(*(x.copy() for x in getattr(small, name)))
      for name in ('train', 'validation', 'test')
    }
  )

  def load(*, data_dir: str | None):
    del data_dir
    return small

  table.DATA['mnist'] = load


if os.environ.get('FAST_RUNS'):
  _make_fast()
