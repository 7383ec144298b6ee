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

# No handler of Python runs until the loop ends, which it does not.
COMPILED = """
import jax
from experiments import interrupt
with interrupt.Interrupt():
  print('ready', flush=True)
  jax.lax.while_loop(lambda x: x >= 0, lambda x: 0 * x, 0).block_until_ready()
"""


def handlers():
  return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_flag(number):
  before = handlers()
  stop = interrupt.Interrupt()
  with contextlib.suppress(RuntimeError), stop:
    assert not stop.agree()
    signal.raise_signal(number)
    assert stop.agree()
    assert stop.signal == number
    raise RuntimeError
  assert handlers() == before


def test_a_second_sigint_ends_the_process_in_the_midst_of_compiled_code():
  with subprocess.Popen(
    [sys.executable, '-c', COMPILED],
    cwd=REPOSITORY,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  ) as process:
    assert process.stdout.readline() == b'ready\n'
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == b'\n'
    assert process.stderr.readline() == interrupt.FIRST[1:]
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 128 + signal.SIGINT
    assert process.stderr.read() == interrupt.SECOND


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
