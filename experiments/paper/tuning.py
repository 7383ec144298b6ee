"""Tries of learning rates and initializations, as a CSV file.

  python -m experiments.paper.tuning --runs=DIR \
      --out=docs/results/tuning/NAME.csv

A line is a run: the config keys that tell the runs apart, the seed, the metric
on the validation and the test split, and the status. A row of a table is what
has the same keys apart from `TRIED`; its best try on the validation split,
averaged over seeds, is printed. A try in which a seed did not end is none.
"""

import argparse
from collections.abc import Sequence
import math
import sys
from typing import Any

import numpy as np
import pandas as pd

from experiments import rundir
from experiments.paper import runs as runs_lib

USER_ERROR = 2  # exit code
TRIED = ('optimizer.learning_rate', 'method.init', 'optimizer.ham_a')
# Keys before others that tell the same runs apart.
FIRST = (
  'data.name', 'method.name', 'strategy.name', 'method.density',
  'method.forward_density', 'powerprop.alpha', 'optimizer.ham_b', *TRIED,
)  # fmt: skip
LOWER_IS_BETTER = ('bits_per_character', 'perplexity')
METRICS = (*LOWER_IS_BETTER, 'accuracy')
RESULTS = ('seed', 'metric', 'validation', 'test', 'status')


def to_frame(runs: Sequence[runs_lib.Run]) -> pd.DataFrame:
  """Returns a line for each run, the best try of each row first.

  Columns: the keys, `RESULTS`, and 'owned' of strategies that own weights.

  Raises:
    ValueError: If the runs have several metrics.
  """
  results = pd.DataFrame([_result(run) for run in runs])
  if len(names := sorted(set(results.metric.dropna()))) > 1:
    raise ValueError(f'expected runs of one metric, got {", ".join(names)}')
  frame = pd.concat([_keys(runs), results], axis=1)
  lower = bool(names) and names[0] in LOWER_IS_BETTER
  rows = _row_keys(frame)
  return frame.sort_values(
    [*rows, 'validation', 'seed'],
    ascending=[*[True] * len(rows), lower, True],
    key=lambda x: x.map(str) if x.name in rows else x,
  ).reset_index(drop=True)


def best(frame: pd.DataFrame) -> pd.DataFrame:
  """Returns the best try of each row, with the means over its seeds."""
  keys = [key for key in frame if key not in (*RESULTS, 'owned')]
  rows = _row_keys(frame)
  measured = [key for key in ('validation', 'test', 'owned') if key in frame]
  texts = frame.assign(**{key: frame[key].map(str) for key in keys})
  grouped = texts.groupby(keys or ['metric'], sort=False, dropna=False)
  means = grouped[measured].agg(lambda x: x.mean(skipna=False)).reset_index()
  means = means.dropna(subset=['validation'])
  lower = frame.metric.isin(LOWER_IS_BETTER).any()
  means = means.sort_values('validation', ascending=lower, kind='stable')
  return means.drop_duplicates(rows) if rows else means.head(1)


def _keys(runs: Sequence[runs_lib.Run]) -> pd.DataFrame:
  """Returns the fewest keys that tell runs of a seed apart, with values."""
  configs = [
    {key: x for key, x in run.config.items() if key != 'seed'} for run in runs
  ]
  flat = runs_lib.differing(configs)
  kept: list[str] = []
  num_known = 1
  order = [key for key in FIRST if key in flat]
  for key in [*order, *flat.columns.difference(order, sort=False)]:
    num = len(flat[[*kept, key]].map(str).drop_duplicates())
    if num > num_known:
      kept, num_known = [*kept, key], num
  return flat[kept]


def _row_keys(frame: pd.DataFrame) -> list[str]:
  return [key for key in frame if key not in (*TRIED, *RESULTS, 'owned')]


def _result(run: runs_lib.Run) -> dict[str, Any]:
  """Returns seed, status, and the metrics of a run that is done."""
  result = {
    'seed': run.config['seed'], 'metric': None, 'validation': math.nan,
    'test': math.nan, 'status': run.state.status,
  }  # fmt: skip
  if run.state.status != 'done':
    return result
  if 'strategy' in run.config:
    measures = runs_lib.task_measures(run)
    split = 'learned' if runs_lib.of_split(run, 'learned') else 'validation'
    last = {x['task']: x['accuracy'] for x in runs_lib.of_split(run, split)}
    owned = {'owned': measures['owned']} if 'owned' in measures else {}
    return result | owned | {
      'metric': 'accuracy',
      'validation': float(np.mean([*last.values()] or [np.nan])),
      'test': measures['average_accuracy'],
    }  # fmt: skip
  test = runs_lib.of_split(run, 'test')[-1]
  metric = next(name for name in METRICS if name in test)
  found = [x[metric] for x in runs_lib.of_split(run, 'validation')]
  return result | {
    'metric': metric,
    'validation': found[-1] if found else math.nan,
    'test': test[metric],
  }


def main(arguments: Sequence[str]) -> int:
  """Runs the command, and returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name in ('runs', 'out'):
    parser.add_argument(f'--{name}', type=rundir.user_path, required=True)
  given = parser.parse_args(arguments)
  try:
    runs, left = runs_lib.read(given.runs)
    runs = [run for run in runs if run.config]
    if not runs:
      raise ValueError(f'expected runs that ended in {given.runs}, got none')
    frame = to_frame(runs)
  except (ValueError, OSError) as error:
    print(f'experiments.paper.tuning: {error}', file=sys.stderr)
    return USER_ERROR
  for path, why in left:
    print(f'left out {path}: {why}', file=sys.stderr)
  given.out.parent.mkdir(parents=True, exist_ok=True)
  text = frame.to_csv(index=False, lineterminator='\n', float_format='%.6g')
  rundir.write_bytes(given.out, text.encode())
  print(best(frame).to_string(index=False))
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
