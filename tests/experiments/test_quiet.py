"""What a failed save leaves behind prints nothing."""

import asyncio
import contextlib
import gc
import logging
import sys
import threading
import time

import pytest
import tensorstore

from experiments.common import quiet

OWN = 'leave_a_write_behind'  # in the name of the task below


def leave_a_write_behind():
  """A loop ends while something is still to be written; then it is."""
  promise, future = tensorstore.Promise.new()

  async def write():
    await future

  async def save():
    tasks.append(asyncio.ensure_future(write()))
    await asyncio.sleep(0.01)  # until it waits
    raise OSError('the disk is full')

  tasks = []
  loop = asyncio.new_event_loop()
  with contextlib.suppress(OSError):
    loop.run_until_complete(save())
  loop.close()
  thread = threading.Thread(target=promise.set_result, args=(None,))
  thread.start()
  thread.join()
  time.sleep(0.2)  # It reaches the loop from yet another thread.


@pytest.fixture
def ignored(monkeypatch):
  """Returns exceptions that Python prints because nobody can catch them."""
  gc.collect()  # what other tests left
  found = []
  monkeypatch.setattr(
    sys, 'unraisablehook', lambda seen: found.append(repr(seen.exc_value))
  )
  return found


def test_what_is_written_after_the_loop_is_closed_prints_without(
  ignored, caplog
):
  leave_a_write_behind()
  gc.collect()
  assert "RuntimeError('Event loop is closed')" in ignored
  assert OWN in caplog.text


def test_what_is_written_after_the_loop_is_closed_is_ignored(ignored, caplog):
  with quiet.quiet():
    leave_a_write_behind()
  gc.collect()
  assert ignored == []
  assert OWN not in caplog.text


def test_loops_and_logs_are_as_before_afterwards():
  policy = asyncio.get_event_loop_policy()
  level = logging.getLogger('absl').level
  with contextlib.suppress(KeyError), quiet.quiet():
    assert asyncio.get_event_loop_policy() is not policy
    raise KeyError
  assert asyncio.get_event_loop_policy() is policy
  assert logging.getLogger('absl').level == level


def test_failures_of_an_open_loop_are_reported(caplog):
  with quiet.quiet():
    loop = asyncio.new_event_loop()
  loop.call_soon(lambda: 1 / 0)
  loop.call_soon_threadsafe(loop.stop)
  loop.run_forever()
  loop.close()
  assert 'ZeroDivisionError' in caplog.text
