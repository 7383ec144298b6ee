"""Watching runs that others train: jobs of a cluster, or a sweep elsewhere.

Only the files of the folders are read, so it can begin and end at any time.
"""

from collections.abc import Callable
from collections.abc import Sequence
import os
import pathlib
import time

from experiments.common import lock
from experiments.common import run as run_lib
from experiments.sweeps import display
from experiments.sweeps import session
from experiments.sweeps import states
from experiments.sweeps import unpacking

# A run that failed may be tried again; who watches need not wait for that.
_ENDED = (*states.ENDED, 'failed')


def watch(
  workdir: pathlib.Path,
  names: Sequence[str],
  submitted: Sequence[str] = (),
  *,
  every_s: float = 1.0,
) -> tuple[dict[str, states.State], bool]:
  """Shows the runs of a sweep until all have ended, or Ctrl-C.

  Args:
    workdir: of the sweep.
    names: of its runs.
    submitted: those that were just handed to a cluster: what their folders say
      until one begins is of before.
    every_s: seconds from one look at the folders to the next.

  Returns:
    The last state of each run, and whether all have ended.
  """
  seen = Folders(workdir, names, submitted)
  try:
    with display.Display(names, seen.read) as shown:
      while True:
        found = {name: seen.now(name) for name in names}
        running = {n for n, state in found.items() if state.status == 'running'}
        shown.update(running, force=True)
        if all(state.status in _ENDED for state in found.values()):
          break
        time.sleep(every_s)
  except KeyboardInterrupt:
    found = {name: seen.now(name) for name in names}
  session.report(found)
  return found, all(state.status in _ENDED for state in found.values())


class Folders:
  """The folders of a sweep's runs."""

  def __init__(
    self,
    workdir: pathlib.Path,
    names: Sequence[str],
    submitted: Sequence[str] = (),
    clock: Callable[[], float] = time.monotonic,
  ):
    """Begins.

    Args:
      workdir: of the sweep.
      names: of its runs.
      submitted: those whose folders are from before they were submitted.
      clock: seconds.
    """
    self._workdir, self._clock = workdir, clock
    self._packs = _packs(workdir)
    self._before = {name: self._status_at(name) for name in submitted}
    self._touched: dict[pathlib.Path, tuple[int, float]] = {}

  def read(self, name: str) -> states.State:
    """Returns what the folder of a run says."""
    pack, number = self._packs.get(name, (None, 0))
    state = states.read(self._workdir / name, pack, number)
    is_old = name in self._before and self._before[name] == self._status_at(
      name
    )
    if is_old and state.status not in states.ENDED:
      return state._replace(status=states.WAITING)
    return state

  def now(self, name: str) -> states.State:
    """Returns the state of a run: one that died does not run."""
    state = self.read(name)
    if state.status != 'running':
      return state
    return display.now_of(state, self._is_held(name))

  def _is_held(self, name: str) -> bool:
    """Whether the process that has the run's lock gives signs of life."""
    if name in self._packs:  # has no lock
      return True
    path = self._workdir / name / lock.FILE
    touched = _modified(path)
    if touched is None:
      return False
    if self._touched.get(path, (None, 0))[0] != touched:
      self._touched[path] = touched, self._clock()
    return self._clock() - self._touched[path][1] < lock.PATIENCE

  def _status_at(self, name: str) -> int | None:
    return _modified(self._workdir / name / 'status.json')


def _packs(workdir: pathlib.Path) -> dict[str, tuple[pathlib.Path, int]]:
  """Returns the folder of the pack, and the number in it, of runs in one."""
  return {
    run['name']: (path.parent, number)
    for path in sorted((workdir / unpacking.FOLDER).glob('*/' + unpacking.FILE))
    for number, run in enumerate(run_lib.read_json(path))
  }


def _modified(path: pathlib.Path) -> int | None:
  try:
    return os.stat(path).st_mtime_ns
  except OSError:
    return None
