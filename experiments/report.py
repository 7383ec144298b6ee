"""The report on a run of image classification: a table and plots."""

from collections.abc import Sequence
import pathlib
from typing import Any

import rich.console

from experiments import plots
from experiments import results


def report(
  rows: Sequence[results.Row],
  directory: pathlib.Path | None,
  console: rich.console.Console,
) -> dict[str, Any]:
  """Prints the results, draws the plots, and returns the summary.

  Args:
    rows: the metrics of a run.
    directory: where the plots go; None: no plots.
    console: where the table goes.
  """
  seeds = len(results.distinct(rows, 'seed'))
  console.print(
    results.for_terminal(
      rows, f'Test accuracy [%], mean ± deviation of {seeds} seed(s)'
    )
  )
  if directory is not None:
    drawn = plots.draw_all(rows, directory)
    print('Plots:', *drawn, sep='\n  ')
  return results.summarize(rows)
