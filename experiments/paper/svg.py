"""Figures as SVG inside a page: they take its colors, light or dark."""

from collections.abc import Callable
import io
import itertools
import re
from typing import Any

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt

from experiments import plots

# Stands for the page's color of text, which only the browser knows.
_INK = '#0a0b0c'
_STYLE = {
  **plots.STYLE,
  'axes.edgecolor': _INK,
  'axes.facecolor': 'none',
  'axes.labelcolor': _INK,
  'figure.facecolor': 'none',
  'font.size': 9,
  'grid.color': _INK,
  'grid.alpha': 0.15,
  'legend.edgecolor': _INK,
  'legend.facecolor': 'none',
  'legend.framealpha': 0.3,
  'savefig.facecolor': 'none',
  'svg.fonttype': 'none',
  'text.color': _INK,
  'xtick.color': _INK,
  'ytick.color': _INK,
}
_numbers = itertools.count()


def draw(make: Callable[[], Any]) -> str:
  """Returns the SVG element of a figure, or '' if `make` returns None.

  Args:
    make: draws a figure, in the style that it is called in.
  """
  with plt.rc_context(_STYLE):
    figure = make()
    if figure is None:
      return ''
    file = io.StringIO()
    figure.savefig(file, format='svg', metadata={'Date': None})
    plt.close(figure)
  return embed(file.getvalue(), f'f{next(_numbers)}-')


def embed(document: str, prefix: str) -> str:
  """Returns the `svg` element of a document, its ids made unlike others'."""
  element = document[document.index('<svg') :]
  element = re.sub(r'\bid="', f'id="{prefix}', element)
  element = re.sub(r'url\(#', f'url(#{prefix}', element)
  element = re.sub(r'(xlink:)?href="#', f'href="#{prefix}', element)
  element = element.replace(_INK, 'currentColor')
  element = re.sub(r'<metadata>.*?</metadata>', '', element, flags=re.DOTALL)
  # The page scales it, but no small figure to the whole width.
  return re.sub(
    r' width="([\d.]+)pt" height="[\d.]+pt"',
    lambda found: f' style="max-width: {1.2 * float(found[1]):.0f}pt"',
    element,
    count=1,
  )


def points(values: list[float], width: float = 100, height: float = 20) -> str:
  """Returns the points of a polyline through values, in a box.

  Example:
    >>> points([1.0, 3.0, 2.0])
    '0,19 50,1 100,10'

  Returns:
    '' for less than two values.
  """
  if len(values) < 2:
    return ''
  low, high = min(values), max(values)
  span = (high - low) or 1.0
  step = width / (len(values) - 1)
  return ' '.join(
    f'{i * step:.4g},{height - 1 - (height - 2) * (x - low) / span:.4g}'
    for i, x in enumerate(values)
  )
