"""Results of a run, from its metrics: means over seeds, tables, a summary."""

from collections.abc import Iterable
from collections.abc import Sequence
import statistics
from typing import Any
from typing import NamedTuple

from rich import table as rich_table

Row = dict[str, Any]


class Cell(NamedTuple):
  """A figure over seeds."""

  mean: float
  deviation: float  # of the sample; 0 where there is one seed
  num: int  # seeds

  def __str__(self):
    """Formats a share in percent."""
    text = f'{100 * self.mean:.2f}'
    return text + (f' ± {100 * self.deviation:.2f}' if self.num > 1 else '')


def cell(values: Sequence[float]) -> Cell:
  """Returns mean and sample deviation of `values`."""
  deviation = statistics.stdev(values) if len(values) > 1 else 0.0
  return Cell(statistics.fmean(values), deviation, len(values))


def select(rows: Iterable[Row], **fields: Any) -> list[Row]:
  """Returns the rows that have all of `fields`."""
  return [
    row
    for row in rows
    if all(row.get(name) == value for name, value in fields.items())
  ]


def distinct(rows: Iterable[Row], field: str) -> list[Any]:
  """Returns the values of `field`, ascending."""
  return sorted({row[field] for row in rows if field in row})


def curve(
  rows: Sequence[Row], alpha: float, metric: str
) -> tuple[list[float], list[Cell]]:
  """Returns densities, ascending, and `metric` over seeds at each of them."""
  pruned = select(rows, split='pruned', alpha=alpha)
  densities = distinct(pruned, 'density')
  cells = [
    cell([row[metric] for row in select(pruned, density=density)])
    for density in densities
  ]
  return densities, cells


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
  """Returns the final figures of each alpha, and of each pruning level."""
  alphas = distinct(rows, 'alpha')
  tests = {alpha: select(rows, split='test', alpha=alpha) for alpha in alphas}
  return {
    'test': [
      {
        'alpha': alpha,
        'seeds': distinct(found, 'seed'),
        'accuracy': cell([row['accuracy'] for row in found])._asdict(),
        'loss': cell([row['loss'] for row in found])._asdict(),
      }
      for alpha, found in tests.items()
      if found
    ],
    'pruned': [
      {
        'alpha': alpha,
        'density': density,
        'accuracy': accuracy._asdict(),
        'loss': loss._asdict(),
      }
      for alpha in alphas
      for density, accuracy, loss in zip(
        *curve(rows, alpha, 'accuracy'),
        curve(rows, alpha, 'loss')[1],
        strict=True,
      )
    ],
  }


def make_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
  """Returns header and lines: test accuracy, alpha against what is kept."""
  alphas = distinct(select(rows, split='test'), 'alpha')
  header = ['weights kept [%]', *(f'alpha {alpha:g}' for alpha in alphas)]
  accuracies = [
    [row['accuracy'] for row in select(rows, split='test', alpha=alpha)]
    for alpha in alphas
  ]
  lines = [['as trained', *(str(cell(values)) for values in accuracies)]]
  curves = [curve(rows, alpha, 'accuracy') for alpha in alphas]
  densities = curves[0][0] if curves else []
  for i in reversed(range(len(densities))):
    lines.append(
      [f'{100 * densities[i]:.2f}', *(str(cells[i]) for _, cells in curves)]
    )
  return header, lines


def markdown(rows: Sequence[Row]) -> str:
  """Returns the table as Markdown."""
  header, lines = make_table(rows)
  rule = ['---:'] * len(header)
  return '\n'.join(f'| {" | ".join(line)} |' for line in (header, rule, *lines))


def for_terminal(rows: Sequence[Row], title: str) -> rich_table.Table:
  """Returns the table for a terminal."""
  header, lines = make_table(rows)
  table = rich_table.Table(title=title)
  for name in header:
    table.add_column(name, justify='right')
  for line in lines:
    table.add_row(*line)
  return table
