import contextlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from experiments import interrupt

REPOSITORY = pathlib.Path(interrupt.__file__).parents[1]
CHILD = """
import time
from experiments import interrupt
interrupt.end_with_parent()
print('ready', flush=True)
time.sleep(600)
"""


def handlers():
  return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_flag_and_a_second_sigint_raises(number):
  before = handlers()
  stop = interrupt.Interrupt()
  with contextlib.suppress(RuntimeError), stop:
    assert not stop.agree()
    signal.raise_signal(number)
    assert stop.agree()
    assert stop.signal == number
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
    raise RuntimeError
  assert handlers() == before


def test_a_child_ends_when_its_parents_pipe_closes():
  reader, writer = os.pipe()
  with subprocess.Popen(
    [sys.executable, '-c', CHILD],
    cwd=REPOSITORY,
    stdin=reader,
    stdout=subprocess.PIPE,
    env={**os.environ, interrupt.CHILD: '1'},
  ) as process:
    assert process.stdout.readline() == b'ready\n'
    assert process.poll() is None
    os.close(writer)
    assert process.wait(120) == 1
  os.close(reader)
