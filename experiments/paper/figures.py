"""Every plot of a table, by kind."""

from collections.abc import Callable
from collections.abc import Sequence
import functools
from typing import Any

from experiments.paper import collect
from experiments.paper import drawing
from experiments.paper import fill
from experiments.paper import tracks

OF_CELLS = {'density': drawing.draw_density, 'flops': drawing.draw_flops}
OF_NETWORKS = {
  'tasks': tracks.draw_tasks,
  'training': tracks.draw_training,
  'masks': tracks.draw_mask_change,
  'histograms': tracks.draw_histograms,
  'overlap': tracks.draw_overlap,
}


def drawings(
  filled: fill.Filled, chosen: Sequence[Sequence[collect.Network]]
) -> dict[str, Callable[[], Any]]:
  """Returns by kind what draws a plot: a figure, or None without data.

  Args:
    filled: a table with its cells.
    chosen: the networks of each cell.
  """
  if not filled.table.has_plots:
    return {}
  return {
    **{
      kind: functools.partial(draw, filled) for kind, draw in OF_CELLS.items()
    },
    **{
      kind: functools.partial(draw, filled, chosen)
      for kind, draw in OF_NETWORKS.items()
    },
  }
