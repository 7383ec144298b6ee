"""Runs of launch.py that are killed, in processes forked from a server.

The server has imported everything, which is most of the time of a short run,
and has read a small part of MNIST; it has not used JAX. Its children run
`launch.main` as the command does, but print and draw no results.
"""

import contextlib
import functools
import io
import json
import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import resource
import signal
import socket
import sys
import time
from typing import Any
from typing import NamedTuple
from unittest import mock

import jax

from experiments.data import dataset
from experiments.data import mnist
from experiments.data import table
from experiments.paper import summary
import launch

REPOSITORY = pathlib.Path(launch.__file__).parent
SMALL = [
  f'--config={REPOSITORY}/configs/mnist_topkast.py:quick',
  '--config.seeds=(0,)',
  '--config.model.hidden=(8,)',
  '--config.powerprop.alphas=(2.0,)',
  '--config.method.refresh_every=3',
  '--config.optimizer.learning_rate=0.1',
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
LONG = '--config.train.num_steps=100000'
BOUND = 300  # seconds; a run takes about three on an idle machine
_COUNTED = (
  'open', 'os.mkdir', 'os.rename', 'os.remove', 'os.rmdir', 'os.truncate',
)  # fmt: skip
_children: list[multiprocessing.Process] = []


class Plan(NamedTuple):
  """Faults of a run."""

  kill_at_file: int | None = None  # n-th operation on a file of the run, from 1
  kill_at_save: int | None = None  # the same, on an unfinished checkpoint
  limit_at_status: int | None = None  # files are limited from the n-th one on
  limit: str = ''  # 'metrics': cannot grow; 'save': no file beyond 10 kB
  environment: dict[str, str] = {}  # noqa: RUF012


class Ended(NamedTuple):
  """How a run ended."""

  code: int  # negative: by a signal
  output: str
  counts: dict[str, int]  # operations on files, unless it was killed


@contextlib.contextmanager
def server(cache: pathlib.Path):
  """A context with the server; kills all children at the end."""
  fast = {
    'PYTHONPATH': str(REPOSITORY),
    'XLA_FLAGS': '',
    'JAX_COMPILATION_CACHE_DIR': str(cache),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'FAST_RUNS': '1',
  }
  with mock.patch.dict(os.environ, fast):
    _context()
    multiprocessing.forkserver.ensure_running()
  yield
  for child in _children:
    child.kill()
    child.join()
  _children.clear()


def start(workdir: pathlib.Path, arguments=(), plan: Plan = Plan()):  # noqa: B008
  """Returns a process that runs launch.py, and the pipe of its output."""
  return call(_launch, [*SMALL, *arguments, f'--workdir={workdir}'], plan)


def start_several(workdir: pathlib.Path, num: int, arguments=()):
  """Returns what `start` does for each of several processes of one run."""
  flags = [f'--config.train.num_devices={num}', *arguments]
  return [
    start(workdir, [*flags, *(f'--{name}={x}' for name, x in place.items())])
    for place in placements(num)
  ]


def placements(num: int) -> list[dict[str, Any]]:
  """Returns the flags of each of several processes of one run."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    place = {'coordinator': f'127.0.0.1:{probe.getsockname()[1]}'}
  return [
    {**place, 'process_count': num, 'process_index': i} for i in range(num)
  ]


def call(function, *args):
  """Returns a process that calls a function, and the pipe of its output."""
  context = _context()
  here, there = context.Pipe(duplex=False)
  process = context.Process(target=_child, args=(function, args, there))
  process.start()
  _children.append(process)
  there.close()
  return process, here


def finish(started) -> Ended:
  """Returns how a started run ended; kills it if it does not."""
  process, here = started
  process.join(BOUND)
  if process.exitcode is None:
    process.kill()  # JAX swallows SIGTERM while it connects
    raise TimeoutError(f'no end within {BOUND} s')
  with io.FileIO(os.dup(here.fileno())) as pipe:
    output = pipe.readall().decode()
  here.close()
  text, *counts = output.split('\0')
  text += counts[1] if counts else ''
  return Ended(process.exitcode, text, json.loads(counts[0]) if counts else {})


def run(workdir, arguments=(), plan: Plan = Plan()) -> Ended:  # noqa: B008
  """Returns how a run ended."""
  return finish(start(workdir, arguments, plan))


def wait_for(condition) -> None:
  """Returns once a condition holds."""
  deadline = time.monotonic() + BOUND
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def _context() -> Any:
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['tests.killing'])
  return context


def _child(function, args, there) -> None:
  for number in (1, 2):
    os.dup2(there.fileno(), number)
  sys.stdout = open(1, 'w', buffering=1, closefd=False)  # noqa: SIM115
  sys.stderr = open(2, 'w', buffering=1, closefd=False)  # noqa: SIM115
  code = function(*args)
  # JAX does so at exit, but a forked process has none. The first process must
  # not leave before the others know that the run has ended.
  jax.distributed.shutdown()
  sys.exit(code)


def _launch(arguments, plan: Plan) -> int:
  os.environ.update(plan.environment)
  counts = {'file': 0, 'save': 0, 'status': 0}
  sys.addaudithook(functools.partial(_make_faults, plan, counts))
  code = launch.main(arguments)
  sys.stdout.flush()
  os.write(1, b'\0' + json.dumps(counts).encode() + b'\0')
  return code


def _make_faults(plan: Plan, counts, event: str, args: tuple[Any, ...]) -> None:
  """Counts operations on files, and makes the planned faults."""
  if event not in _COUNTED or not isinstance(args[0], (str, os.PathLike)):
    return
  path = str(args[0])
  if '/run' not in path:
    return
  is_save = 'checkpoint-tmp' in path
  counts['file'] += 1
  counts['save'] += is_save
  counts['status'] += event == 'open' and '.status.json.' in path
  if counts['file'] == plan.kill_at_file or (
    is_save and counts['save'] == plan.kill_at_save
  ):
    os.kill(os.getpid(), signal.SIGKILL)
  is_free = resource.getrlimit(resource.RLIMIT_FSIZE)[0] < 0
  if counts['status'] == plan.limit_at_status and is_free:
    metrics = pathlib.Path(path).parent / 'metrics.jsonl'
    size = 10_000 if plan.limit == 'save' else metrics.stat().st_size + 10
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _make_fast() -> None:
  """Makes runs short, in this process and its children."""
  summary.summarize = lambda folders, out, console: {}
  small = mnist.load(data_dir=None)
  for name, size in {'train': 600, 'validation': 200, 'test': 200}.items():
    parts = [x[:size].copy() for x in getattr(small, name)]
    small = small._replace(**{name: dataset.Examples(*parts)})
  source = table.SOURCES['mnist'](data_dir=None)._replace(load=lambda: small)
  table.SOURCES['mnist'] = lambda *, data_dir: source


if os.environ.get('FAST_RUNS'):
  _make_fast()
