"""One call of a sweep on this machine: runs, what one sees, how it ended."""

from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
import signal

from experiments.sweeps import display
from experiments.sweeps import runner
from experiments.sweeps import states

# Of a process that is no failure; what it is, the folder says.
_CODES = (0, 3, 128 + signal.SIGINT, 128 + signal.SIGTERM)


def run(
  names: Sequence[str],
  tasks: Sequence[runner.Task],
  start: runner.Start,
  *,
  workdir: pathlib.Path,
  jobs: int,
) -> tuple[dict[str, states.State], int | None]:
  """Runs tasks and shows all runs of a sweep; prints what failed in the end.

  Args:
    names: of all runs.
    tasks: what is left to do of them.
    start: of a task.
    workdir: of the sweep.
    jobs: tasks at a time.

  Returns:
    The last state of each run, and the signal that stopped all, if one did.
  """
  task_of = {name: task for task in tasks for name in task.runs}
  codes: dict[str, int] = {}

  def read(name: str) -> states.State:
    if name not in task_of:
      return states.read(workdir / name)
    task = task_of[name]
    state = states.read(workdir / name, task.pack, task.runs.index(name))
    code = codes.get(task.name, 0)
    if code in _CODES or state.status in states.ENDED:
      return state
    log = runner.log_of(workdir, task.name)
    why = state.message or runner.last_line(log)
    return state._replace(status='failed', message=f'{why}\n  {log}')

  with display.Display(names, read) as shown:

    def show(ended, running):
      codes.update(ended)
      shown.update({n for n, task in task_of.items() if task.name in running})

    outcome = runner.run_all(tasks, start, jobs=jobs, show=show)
    codes.update(outcome.codes)
    shown.update(set(), force=True)
  found = {name: display.now_of(read(name), False) for name in names}
  report(found)
  return found, outcome.signal


def report(found: Mapping[str, states.State]) -> None:
  """Prints how many runs are in which state, and why some failed."""
  print(display.counts(found))
  for name, state in found.items():
    if state.status in ('diverged', 'failed'):
      print(f'{state.status}: {name}: {state.message}')
