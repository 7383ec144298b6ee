"""Several processes on this machine: to try a run of several on one.

Each has one CPU device. What the first one prints is seen; the last lines of
another are, if it is the one that failed.
"""

import argparse
from collections.abc import Sequence
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

GRACE = 30.0  # seconds in which the others end by themselves
_PARENT = 'SPARSE_TRAINING_PARENT'  # the process that started this one
_LINES = 20  # of what a failed process printed


def run(program: str, arguments: Sequence[str], count: int) -> int:
  """Runs a program as `count` processes; returns the first failed exit code.

  SIGINT and SIGTERM are handed on. When one process fails, or is killed, the
  others end.

  Args:
    program: a Python file.
    arguments: of each process, except for `--processes`; where it is among
      the others is added.
    count: how many.

  Returns:
    0, the exit code of the process that failed first, or 128 + signal.
  """
  arguments = _without_processes(arguments)
  with tempfile.TemporaryDirectory(prefix='processes-') as folder:
    logs = [pathlib.Path(folder) / f'{i}.log' for i in range(count)]
    flags = [f'--coordinator=127.0.0.1:{_free_port()}']
    flags.append(f'--process_count={count}')
    children = []
    try:
      for i, log in enumerate(logs):
        own = [*arguments, *flags, f'--process_index={i}']
        children.append(_start([program, *own], log if i else None))
      with _HandOn(children):
        return _watch(children, logs)
    finally:
      for child in children:
        child.kill()  # SIGTERM would only ask it to save and to end
      for child in children:
        child.wait()


def exit_with_parent() -> None:
  """Ends this process when the one that started it here ends."""
  parent = os.environ.get(_PARENT)
  if parent is not None:
    threading.Thread(target=_follow, args=(int(parent),), daemon=True).start()


class _HandOn:
  """A context in which signals go to the children."""

  def __init__(self, children: list[subprocess.Popen]):
    self._children = children
    self._previous = {}

  def __enter__(self) -> None:
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGINT, signal.SIGTERM):
        self._previous[number] = signal.signal(number, self._handle)

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _handle(self, number, frame) -> None:
    del frame
    for child in self._children:
      child.send_signal(number)


def _start(command: list[str], log: pathlib.Path | None) -> subprocess.Popen:
  forced = r'--xla_force_host_platform_device_count=\S+'
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    # Several forced devices in each of several processes wait for ever.
    'XLA_FLAGS': re.sub(forced, '', os.environ.get('XLA_FLAGS', '')),
    _PARENT: str(os.getpid()),
  }
  output = None if log is None else log.open('w')
  try:
    return subprocess.Popen(
      [sys.executable, *command],
      env=environment,
      stdout=output,
      stderr=output and subprocess.STDOUT,
      start_new_session=True,  # Ctrl-C reaches it through us alone
    )
  finally:
    if output:
      output.close()


def _without_processes(arguments: Sequence[str]) -> list[str]:
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  parser.add_argument('--processes')
  return parser.parse_known_args(arguments)[1]


def _watch(children: list[subprocess.Popen], logs: list[pathlib.Path]) -> int:
  """Returns the exit code of the whole, when all have ended."""
  while True:
    codes = [child.poll() for child in children]
    failed = [i for i, code in enumerate(codes) if code]
    if failed:
      break
    if None not in codes:
      return 0
    time.sleep(0.05)
  first = failed[0]
  code = codes[first]
  deadline = time.monotonic() + GRACE
  while time.monotonic() < deadline and None in [c.poll() for c in children]:
    time.sleep(0.05)
  late = [i for i, child in enumerate(children) if child.poll() is None]
  _explain(first, code, late, logs)
  return code if code > 0 else 128 - code


def _explain(first: int, code: int, late: list[int], logs) -> None:
  if first and code != 128 + signal.SIGINT and code != 128 + signal.SIGTERM:
    lines = logs[first].read_text(errors='replace').splitlines()[-_LINES:]
    print(*lines, sep='\n', file=sys.stderr)
  if code < 0 or late:
    how = f'by {signal.Signals(-code).name}' if code < 0 else f'with {code}'
    others = f', killed the process(es) {late} that did not' if late else ''
    print(
      f'Process {first} of {len(logs)} ended {how}; ended the others{others}. '
      'The same command goes on from the last checkpoint.',
      file=sys.stderr,
    )


def _free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def _follow(parent: int) -> None:
  while os.getppid() == parent:
    time.sleep(0.5)
  os._exit(1)
