"""Trains the networks of a config: --config=FILE[:VARIANT] --workdir=DIR.

Override any value by --config.section.key=value. The same command resumes an
interrupted run.

Several seeds or alphas, or --sweep=NAME, make several runs, each in a folder
below DIR. They train one after another, --jobs=N at a time, or as jobs of a
cluster with --executor. --list shows them, --watch follows them live.

--dry_run checks the config and lowers its training step for CPU, GPU and TPU,
without data or device; with --topology=v5e:2x2 it compiles the step for these
TPUs and tells whether it fits their memory. --eval_only evaluates trained
networks. With --distributed or --coordinator several processes train each run
together.
"""

from collections.abc import Sequence
import pathlib
import shlex
import signal
import sys
import warnings

from absl import app
from absl import flags
from absl import logging

from experiments import build
from experiments import dryrun
from experiments import initial
from experiments import interrupt
from experiments import multihost
from experiments import output
from experiments import rundir
from experiments import trainer
from experiments.sweep import jobs
from experiments.sweep import plan as plan_lib
from experiments.sweep import points
from experiments.sweep import run as run_lib
from experiments.sweep import slurm
from experiments.sweep import status

FLAGS = flags.FLAGS
flags.DEFINE_string('config', None, 'Config: FILE or FILE:VARIANT.')
flags.DEFINE_string('workdir', None, 'Folder of the run, or of its runs.')
flags.DEFINE_bool('dry_run', False, 'Check and lower; needs no data.')
flags.DEFINE_string(
  'topology', None, 'TPUs, such as v5e:2x2, that --dry_run compiles for.'
)
flags.DEFINE_bool('eval_only', False, 'Evaluate trained networks.')
flags.DEFINE_string(
  'sweep', None, 'Function of FILE or of sweeps.py beside it.'
)
flags.DEFINE_integer('jobs', None, 'Runs at a time.', lower_bound=1)
flags.DEFINE_bool('list', False, 'List the runs and their states.')
flags.DEFINE_bool('watch', False, 'Follow runs that other processes train.')
flags.DEFINE_integer('index', None, 'Train this run alone, from 0.')
flags.DEFINE_enum(
  'executor', None, ['local', 'slurm'], 'Give each run its process.'
)
flags.DEFINE_string('cluster', None, 'Config of jobs; cluster.py beside FILE.')
flags.DEFINE_enum(
  'distributed', None, list(multihost.CLUSTERS), 'Be one of several processes.'
)
flags.DEFINE_string('coordinator', None, 'HOST:PORT of the first process.')
flags.DEFINE_integer('process_count', None, 'Number of processes.')
flags.DEFINE_integer('process_index', None, 'Number of this process, from 0.')

USER_ERROR, DIVERGED, MACHINE = (
  run_lib.USER_ERROR, run_lib.DIVERGED, run_lib.MACHINE
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
  """Runs the command; returns the exit code."""
  logging.set_verbosity(logging.ERROR)  # Orbax reports every save
  interrupt.end_with_parent()
  try:
    overrides, cluster = parse(arguments)
    plan = plan_lib.make(FLAGS.config, overrides, FLAGS.sweep)
    workdir = rundir.user_path(FLAGS.workdir or '.')
    if FLAGS.list:
      run_lib.check(plan, workdir, given=FLAGS.workdir is not None)
      return _list(plan, workdir)
    if FLAGS.watch and not FLAGS.executor:
      return _watch(plan, workdir)
    whole, parent = plan, workdir
    if FLAGS.index is not None:
      plan, workdir = _one(plan, workdir)
    has_children = plan.has_several and (FLAGS.jobs or 1) > 1
    if FLAGS.executor or has_children or (FLAGS.dry_run and FLAGS.sweep):
      return _train_apart(plan, workdir, cluster)
    if FLAGS.dry_run:
      if FLAGS.topology:
        run_lib.use_cpu(plan)
      lines = dryrun.dry_run(plan.runs[0].config, FLAGS.topology)
      print(*lines, sep='\n')
      return 0
    multihost.start(_placement())
    if not multihost.is_first():  # which warns for all
      warnings.simplefilter('ignore')
    multihost.together(run_lib.check, plan, workdir)
    if FLAGS.eval_only:
      return _evaluate(plan, workdir)
    if FLAGS.index is not None:
      multihost.in_first(plan_lib.write, whole, parent)
    return run_lib.train(plan, workdir)
  except (ValueError, OSError) as error:
    print(f'launch.py: {error}', file=sys.stderr)
    return USER_ERROR
  except KeyboardInterrupt:  # no run was training
    return run_lib.SIGNALLED + signal.SIGINT


def parse(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
  """Parses the flags; returns the overrides of config and cluster."""
  FLAGS.unparse_flags()
  FLAGS.set_gnu_getopt(True)
  try:
    rest = FLAGS(['launch.py', *arguments], known_only=True)[1:]
  except flags.Error as error:
    raise ValueError(str(error)) from error
  cluster = [word for word in rest if word.startswith('--cluster.')]
  overrides = [word for word in rest if word not in cluster]
  for word in overrides:
    name = word.partition('=')[0]
    if not word.startswith('-'):
      raise ValueError(f'expected flags only, got {word!r}')
    if not name.startswith(('--config.', '--noconfig.')):
      hint = build.did_you_mean(name, [f'--{flag}' for flag in FLAGS])
      raise ValueError(f'unknown flag {name}{hint}')
  if FLAGS.config is None:
    raise ValueError('expected --config=FILE[:VARIANT], got none')
  if FLAGS.workdir is None and not (FLAGS.list or FLAGS.dry_run):
    raise ValueError('expected --workdir=DIR, the folder of the run, got none')
  if (cluster or FLAGS.cluster) and FLAGS.executor != 'slurm':
    raise ValueError('expected --executor=slurm beside --cluster')
  if FLAGS.topology and (FLAGS.sweep or not FLAGS.dry_run):
    raise ValueError('expected --topology with --dry_run of one run')
  if FLAGS.eval_only and FLAGS.sweep:
    raise ValueError('expected no --eval_only with --sweep; evaluate one run')
  if _placement() and (FLAGS.executor or FLAGS.jobs):
    raise ValueError(
      'expected no --jobs or --executor where several processes train a run'
    )
  return overrides, cluster


def _placement() -> multihost.Placement | None:
  return multihost.placement(
    FLAGS.distributed,
    FLAGS.coordinator,
    FLAGS.process_count,
    FLAGS.process_index,
  )


def _one(
  plan: plan_lib.Plan, workdir: pathlib.Path
) -> tuple[plan_lib.Plan, pathlib.Path]:
  """Returns a plan of the run that --index chooses, and its folder."""
  count = len(plan.runs)
  if not 0 <= FLAGS.index < count:
    raise ValueError(
      f'expected --index from 0 to {count - 1}, got {FLAGS.index}'
    )
  plan_lib.check_folder(plan, workdir)
  name = plan.runs[FLAGS.index].name
  print(f'Run {FLAGS.index} of {count}: {name}', flush=True)
  return plan.alone(FLAGS.index), workdir / name


def _list(plan: plan_lib.Plan, workdir: pathlib.Path) -> int:
  """Prints number, name and, given a folder, state of each run."""
  width = max(len(run.name) for run in plan.runs)
  for index, run in enumerate(plan.runs):
    line = f'{index:4} {run.name:{width}}'
    if FLAGS.workdir is not None:
      state = status.read(workdir / run.name)
      steps = '/'.join(str(n) for n in (state.step, state.total_steps) if n)
      what = state.metric or state.message
      line += f'  {state.status:11} {steps:>15}  {what}'
    print(line.rstrip())
  return 0


def _watch(plan: plan_lib.Plan, workdir: pathlib.Path) -> int:
  """Shows runs until they end, or until Ctrl-C, which does not stop them."""
  if plan.has_several and not (workdir / points.FILE).exists():
    raise ValueError(f'expected the folder of a sweep, got {workdir}')
  folders = {run.name: workdir / run.name for run in plan.runs}
  states, have_ended = status.watch(folders)
  status.report(states)
  if not have_ended:
    print('The runs go on; the same command with --watch shows them.')
    return run_lib.SIGNALLED + signal.SIGINT
  done = all(state.status == 'done' for state in states.values())
  return 0 if done else run_lib.FAILED


def _evaluate(plan: plan_lib.Plan, workdir: pathlib.Path) -> int:
  """Writes evaluation.json into each folder and prints its rows."""
  for run in plan.runs:
    folder = workdir / run.name
    task = initial.make_task(run.config)
    multihost.together(task.check_data)
    rows = trainer.evaluate(task, run.config['seed'], folder)
    if multihost.is_first():
      rundir.write_json(folder / 'evaluation.json', rows)
      for row in rows:
        if row['split'] != 'histogram':
          print(f'{run.name} {rundir.to_json(row)}'.strip())
      print(f'Written to {folder / "evaluation.json"}')
  return 0


def _train_apart(
  plan: plan_lib.Plan, workdir: pathlib.Path, overrides: Sequence[str]
) -> int:
  """Trains in child processes or jobs; returns the exit code."""
  if FLAGS.executor and not plan.has_several:
    raise ValueError('expected several runs with --executor, got one')
  run_lib.use_cpu(plan)
  run_lib.check(plan, workdir)
  lines, more = [], ()
  if FLAGS.executor == 'slurm':
    file = pathlib.Path(FLAGS.config.partition(':')[0])
    path = FLAGS.cluster or str(file.with_name('cluster.py'))
    section = points.load(path, overrides, 'cluster')
    cluster = slurm.make_cluster(section)
    lines = [f'{name}: {value}' for name, value in cluster.slurm.items()]
    more = cluster.flags
  if FLAGS.dry_run:
    for run in plan.runs:
      lines += [f'# {run.name}', shlex.join(jobs.command(run, workdir, *more))]
    print(*lines, sep='\n')
    return 0
  if FLAGS.executor == 'slurm':
    slurm.submit(plan, workdir, cluster, FLAGS.jobs)
    return _watch(plan, workdir) if FLAGS.watch else 0
  with jobs.children(workdir, FLAGS.jobs or 1) as start:
    return jobs.train(plan, workdir, FLAGS.jobs or 1, start)


def _start(argv: Sequence[str]) -> Sequence[str]:
  """Marks absl's flags as parsed; `main` parses them, with its own errors."""
  FLAGS(argv[:1])
  return argv[1:]


if __name__ == '__main__':
  output.protect()
  app.run(main, flags_parser=_start)
