"""The command: launch.py --config=FILE --sweep=NAME --workdir=DIR.

Every run of the sweep is trained in a folder of its own below DIR, named by
what it overrides: runs that are done are skipped, interrupted ones go on, and
one that fails does not stop the others. What all runs override is given as
--config.section.key=value; other arguments are handed to each run.
"""

import argparse
from collections.abc import Callable
from collections.abc import Sequence
import functools
import pathlib
import signal
import sys
from typing import Any
from typing import NamedTuple

from experiments.common import build
from experiments.common import config as config_lib
from experiments.sweeps import check
from experiments.sweeps import display
from experiments.sweeps import executors
from experiments.sweeps import grouping
from experiments.sweeps import plan as plan_lib
from experiments.sweeps import runner
from experiments.sweeps import session
from experiments.sweeps import states
from experiments.sweeps import unpacking
from experiments.sweeps import watching

USER_ERROR = 2
FAILED = 1  # a run failed or diverged
EXECUTORS = ('local', 'slurm')


class Program(NamedTuple):
  """What of launch.py a sweep needs."""

  file: pathlib.Path
  main: Callable[[Sequence[str]], int]
  parse: Callable[[Sequence[str]], Any]


def is_asked(arguments: Sequence[str]) -> bool:
  """Returns whether a command line is one of a sweep."""
  return any(argument.partition('=')[0] == '--sweep' for argument in arguments)


def main(arguments: Sequence[str], program: Program) -> int:
  """Runs a sweep, or lists it, or one run of it; returns the exit code."""
  try:
    given, shared, of_cluster = _parse(arguments)
    overrides = plan_lib.collect(plan_lib.find(given.sweep, given.config))
    runs = plan_lib.make_runs(overrides, given.config, shared)
    if given.list:
      return _list(runs, given.workdir)
    if given.workdir is None:
      raise ValueError('expected --workdir=DIR, the folder of the sweep')
    if given.watch and not given.executor:
      return _watch(runs, given)
    if given.packed is not None:
      folder = pathlib.Path(given.workdir) / unpacking.FOLDER / given.packed
      return unpacking.train(folder, program.main)
    if given.index is not None:
      return _run_one(runs, given, program)
    if len(runs) > 8:
      print(f'Checking {len(runs)} runs ...', file=sys.stderr, flush=True)
    configs = check.load(runs, program.parse)
    check.use_cpu(configs)
    check.folders(configs, given.workdir)
    check.plan(configs)
    cluster = _cluster(given, of_cluster)
    if given.dry_run:
      return _dry_run(runs, configs, given, cluster, program)
    plan_lib.write(given.workdir, given.config, given.sweep, runs)
    if given.executor == 'slurm':
      return _submit(runs, configs, given, cluster, program)
    return _run(runs, configs, given, cluster, program)
  except (ValueError, OSError) as error:
    print(f'launch.py: {error}', file=sys.stderr)
    return USER_ERROR


def _parse(arguments: Sequence[str]):
  """Returns the sweep's arguments, those of all runs, and the cluster's."""
  parser = argparse.ArgumentParser(
    'launch.py --sweep',
    'launch.py --config=FILE[:VARIANT] --sweep=NAME --workdir=DIR '
    '[--jobs=N] [--config.section.key=value ...]',
    __doc__,
    allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--config', required=True, help='config file')
  add(
    '--sweep',
    nargs='?',
    const='sweep',
    help="function of FILE or of sweeps.py beside it; 'sweep' if none is named",
  )
  add('--workdir', help='folder of the sweep')
  add('--jobs', type=int, help='runs at a time: 1; of Slurm: all')
  add('--list', action='store_true', help='show the runs and their states')
  add('--watch', action='store_true', help='show how far the runs are, live')
  add('--index', type=int, help='run this one alone, from 0 on')
  add('--pack', type=int, default=1, help='runs to train side by side')
  add('--packed', help=argparse.SUPPRESS)  # the folder of a pack, of a child
  add('--executor', choices=EXECUTORS, help='run through submitit')
  add('--cluster', help='config file of the executor; cluster.py beside FILE')
  add('--dry_run', action='store_true', help='check and show what would be run')
  given, rest = parser.parse_known_args(arguments)
  for name in ('jobs', 'pack'):
    value = getattr(given, name)
    if value is not None and value < 1:
      raise ValueError(f'expected --{name} >= 1, got {value}')
  if '--eval_only' in rest:
    raise ValueError('expected no --eval_only with --sweep; evaluate one run')
  of_cluster = [x for x in rest if x.startswith('--cluster.')]
  if (of_cluster or given.cluster) and not given.executor:
    raise ValueError(
      f'expected --executor, one of {", ".join(EXECUTORS)}, with --cluster'
    )
  return given, [x for x in rest if x not in of_cluster], of_cluster


def _cluster(given, overrides) -> executors.Cluster | None:
  if given.executor is None:
    return None
  file = pathlib.Path(given.config.partition(':')[0])
  path = given.cluster or str(file.with_name('cluster.py'))
  section = config_lib.load(path, overrides, name='cluster')
  cluster = build.call(executors.make_cluster, section, name='cluster')
  if given.executor == 'local' and cluster.num_tasks > 1:
    raise ValueError(
      'expected one task of a run with --executor=local, got '
      f'{cluster.num_tasks}: cluster.nodes and cluster.tasks_per_node'
    )
  return cluster


def _list(runs: Sequence[plan_lib.Run], workdir: str | None) -> int:
  """Prints each run with its number, and its state if there is a folder."""
  width = max(len(run.name) for run in runs)
  for index, run in enumerate(runs):
    line = f'{index:4} {run.name:{width}}'
    if workdir is not None:
      state = states.read(pathlib.Path(workdir) / run.name)
      steps = display.steps_of(state)
      line += (
        f'  {state.status:11} {steps:>15}  {state.figure or state.message}'
      )
    print(line.rstrip())
  return 0


def _run_one(runs, given, program: Program) -> int:
  """Trains one run in this process, as its own command would."""
  if not 0 <= given.index < len(runs):
    raise ValueError(
      f'expected --index from 0 to {len(runs) - 1}, got {given.index}'
    )
  run = runs[given.index]
  check.load([run], program.parse)
  plan_lib.write(given.workdir, given.config, given.sweep, runs)
  print(f'Run {given.index} of {len(runs)}: {run.name}', flush=True)
  folder = pathlib.Path(given.workdir) / run.name
  return program.main([*run.arguments, f'--workdir={folder}'])


def _tasks(runs, configs, given, cluster, program) -> list[runner.Task]:
  """Returns what is left to do; runs of a pack are one task."""
  workdir = pathlib.Path(given.workdir)
  by_name = {run.name: run for run in runs}
  tasks = []
  for names in grouping.group(configs, given.pack):
    packs = workdir / unpacking.FOLDER
    left = [n for n in names if not _is_ended(workdir / n)]
    if (packs / grouping.id_of(names)).is_dir() and left:
      left = names  # as it was begun
    if len(left) > 1:
      tasks.append(_pack_task([by_name[n] for n in left], configs, given))
    tasks += [
      runner.Task(n, (n,), (*by_name[n].arguments, f'--workdir={workdir / n}'))
      for n in left
      if len(left) == 1
    ]
  more = executors.distributed_arguments(cluster) if cluster else ()
  return [
    task._replace(
      command=runner.python_command(program.file, *task.command, *more)
    )
    for task in tasks
  ]


def _pack_task(runs, configs, given) -> runner.Task:
  name = grouping.id_of([run.name for run in runs])
  folder = pathlib.Path(given.workdir) / unpacking.FOLDER / name
  if not given.dry_run:
    packed = [
      unpacking.Packed(run.name, list(run.arguments), configs[run.name])
      for run in runs
    ]
    unpacking.write(folder, packed)
  arguments = ('config', 'sweep', 'workdir')
  command = [f'--{name}={getattr(given, name)}' for name in arguments]
  return runner.Task(
    name,
    tuple(run.name for run in runs),
    (*command, f'--packed={name}'),
    str(folder),
  )


def _is_ended(folder: pathlib.Path) -> bool:
  return states.read(folder).status in states.ENDED


def _dry_run(runs, configs, given, cluster, program: Program) -> int:
  """Prints the script for Slurm, or the command of each run."""
  tasks = _tasks(runs, configs, given, cluster, program)
  if given.executor == 'slurm' and tasks:
    parallel = given.jobs or len(tasks)
    workdir = pathlib.Path(given.workdir)
    print(executors.script(workdir, cluster, len(tasks), parallel))
    print(f'# The {len(tasks)} jobs of it:')
  for task in tasks:
    print(f'# {task.name}\n{" ".join(task.command)}')
  return 0


def _submit(runs, configs, given, cluster, program: Program) -> int:
  workdir = pathlib.Path(given.workdir)
  tasks = _tasks(runs, configs, given, cluster, program)
  ids = executors.submit(workdir, cluster, tasks, given.jobs or len(tasks))
  for name, job_id in ids.items():
    print(f'{job_id} {name}')
  print(
    f'{len(ids)} of {len(runs)} runs submitted; the same command with --list '
    'shows them, with --watch in the place of --executor follows them; their '
    f'logs are below {workdir / executors.FOLDER}'
  )
  if not given.watch:
    return 0
  names = [name for task in tasks if task.name in ids for name in task.runs]
  return _watch(runs, given, names)


def _watch(runs, given, submitted: Sequence[str] = ()) -> int:
  """Shows runs that others train; returns the exit code."""
  workdir = pathlib.Path(given.workdir)
  if not (workdir / plan_lib.FILE).exists():
    raise ValueError(f'expected the folder of a sweep, got {workdir}')
  names = [run.name for run in runs]
  found, have_ended = watching.watch(workdir, names, submitted)
  if not have_ended:
    print('Runs that are left go on; the same command with --watch shows them.')
    return 128 + signal.SIGINT
  return 0 if all(s.status == 'done' for s in found.values()) else FAILED


def _run(runs, configs, given, cluster, program: Program) -> int:
  """Runs all on this machine; returns the exit code."""
  workdir = pathlib.Path(given.workdir)
  with runner.locked(workdir) as lock:
    tasks = _tasks(runs, configs, given, cluster, program)
    jobs = given.jobs or 1
    start = functools.partial(runner.start_process, workdir, lock, jobs)
    if cluster:
      start = functools.partial(executors.start_local, workdir, cluster)
    names = [run.name for run in runs]
    found, stopped = session.run(
      names, tasks, start, workdir=workdir, jobs=jobs
    )
  if stopped is not None:
    print(
      f'{signal.Signals(stopped).name}: what ran has saved. The same command '
      f'goes on from there:\n  python {" ".join(sys.argv)}'
    )
    return 128 + stopped
  return 0 if all(s.status == 'done' for s in found.values()) else FAILED
