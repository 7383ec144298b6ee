import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from experiments.common import lock

REPOSITORY = pathlib.Path(lock.__file__).parents[2]
HOLD = """
import sys, time
from experiments.common import lock
held = lock.acquire(sys.argv[1])
print('held', flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
  """Another process that has the lock of `tmp_path`."""
  process = subprocess.Popen(
    [sys.executable, '-c', HOLD, str(tmp_path)],
    cwd=REPOSITORY,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.wait()
  process.stdout.close()


def write_holder(folder, **fields):
  path = folder / lock.FILE
  holder = {'host': 'elsewhere', 'pid': 12, 'since': 'yesterday', **fields}
  path.write_text(json.dumps(holder))
  return path


def test_a_second_process_is_refused_by_name(tmp_path, holder):
  with pytest.raises(ValueError, match='expected no other run') as error:
    lock.acquire(tmp_path)
  message = str(error.value)
  assert f'process {holder.pid} on {socket.gethostname()} since 20' in message
  assert str(tmp_path) in message


def test_a_second_run_of_one_process_is_refused(tmp_path):
  held = lock.acquire(tmp_path)
  with pytest.raises(ValueError, match=f'process {os.getpid()} on'):
    lock.acquire(tmp_path)
  held.release()
  assert not (tmp_path / lock.FILE).exists()
  lock.acquire(tmp_path).release()


def test_the_lock_of_a_killed_process_does_not_count(tmp_path, holder):
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  assert (tmp_path / lock.FILE).exists()
  held = lock.acquire(tmp_path)
  assert json.loads((tmp_path / lock.FILE).read_text())['pid'] == os.getpid()
  held.release()


@pytest.mark.parametrize('content', ['', '{"host": ', '[3]'])
def test_a_half_written_lock_does_not_count(tmp_path, content):
  (tmp_path / lock.FILE).write_text(content)
  held = lock.acquire(tmp_path)
  assert json.loads((tmp_path / lock.FILE).read_text())['pid'] == os.getpid()
  held.release()


def test_a_lock_of_another_host_that_is_touched_is_refused(tmp_path):
  path = write_holder(tmp_path)
  ended = threading.Event()

  def touch():
    while not ended.wait(0.05):
      os.utime(path)

  thread = threading.Thread(target=touch)
  thread.start()
  try:
    with pytest.raises(ValueError, match='process 12 on elsewhere since yest'):
      lock.acquire(tmp_path, patience=30)
  finally:
    ended.set()
    thread.join()
  assert json.loads(path.read_text())['host'] == 'elsewhere'


def test_a_lock_of_another_host_that_is_left_behind_is_taken(tmp_path):
  write_holder(tmp_path)
  held = lock.acquire(tmp_path, patience=0.2)
  assert json.loads((tmp_path / lock.FILE).read_text())['pid'] == os.getpid()
  held.release()


def test_a_held_lock_is_touched(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, 'BEAT', 0.02)
  held = lock.acquire(tmp_path)
  path = tmp_path / lock.FILE
  os.utime(path, ns=(0, 0))
  deadline = time.monotonic() + 10
  while path.stat().st_mtime_ns == 0:
    assert time.monotonic() < deadline
    time.sleep(0.01)
  held.release()
