"""Published figures, each with its source and how well that is known.

The tables of the two papers themselves could not be read for this: a figure is
here because released code, its documentation, or another project says so.
"""

from typing import Any
from typing import NamedTuple

from experiments.paper import tables_large

# How a figure is known; only the first two are ever printed.
SOURCED = 'S'  # read in the documentation of released code
SECOND_HAND = '2'  # what another project says about a paper
REMEMBERED = 'M'

RIGL = 'https://github.com/google-research/rigl'
STR = 'https://github.com/RAIVNLab/STR'
ACDC = 'https://github.com/IST-DASLab/ACDC'
ST3 = 'https://github.com/vanderschuea/stthree'
JAXPRUNER = 'https://github.com/google-research/jaxpruner'
TRANSFORMER_XL = 'https://github.com/kimiyoung/transformer-xl'
SPARSEML = 'https://github.com/neuralmagic/sparseml'
PORT = 'https://github.com/dlpbc/powerpropagation-pytorch'


class Published(NamedTuple):
  """A published figure."""

  table: str
  where: dict[str, Any]  # facts of the cell it belongs to
  value: float  # accuracies are shares
  source: str
  mark: str
  # What was not as in this table; such a figure is listed and in no cell.
  departs: str = ''


def printable(table: str) -> list[Published]:
  """Returns the figures of a table that may be printed as published."""
  return [
    figure
    for figure in FIGURES
    if figure.table == table and figure.mark in (SOURCED, SECOND_HAND)
  ]


def _imagenet(
  source: str, values: dict[float, float], **where: Any
) -> list[Published]:
  """Returns top-1 accuracies in percent, by density."""
  return [
    Published(
      'imagenet',
      {**where, 'density': density},
      round(value / 100, 6),
      source,
      SOURCED,
    )
    for density, value in values.items()
  ]


def _text(
  table: str, value: float, d_model: int, source: str = TRANSFORMER_XL
) -> Published:
  where = {'method': 'dense', 'd_model': d_model}
  return Published(table, where, value, source, SOURCED)


def _port(alpha: float, share: float, percent: float) -> Published:
  return Published(
    'mnist_pruning',
    {'alpha': alpha, 'kept': share},
    percent / 100,
    PORT,
    SOURCED,
    'learning rate 0.01, momentum 0.9, batch 128, 20 epochs',
  )


_UNIFORM = {'distribution': 'uniform'}
_ERK = {'distribution': 'erdos_renyi_kernel'}
_ONCE = {'examples': tables_large.EXAMPLES}
_FIVE_TIMES = {'examples': 5 * tables_large.EXAMPLES}

FIGURES = (
  *_imagenet(RIGL, {1.0: 76.8}, method='dense', **_ONCE),
  *_imagenet(
    RIGL, {0.2: 74.60, 0.1: 72.02}, method='rigl', **_UNIFORM, **_ONCE
  ),
  *_imagenet(RIGL, {0.2: 75.12, 0.1: 73.07}, method='rigl', **_ERK, **_ONCE),
  *_imagenet(
    RIGL,
    {0.2: 77.17, 0.1: 76.42, 0.05: 74.63, 0.01: 61.86},
    method='rigl',
    **_ERK,
    **_FIVE_TIMES,
  ),
  Published(
    'imagenet',
    {'method': 'topkast', 'density': 0.1, 'backward_ratio': 2.0},
    0.730,
    SPARSEML,
    SECOND_HAND,
    'the figure of the paper, as that project gives it: recipe and '
    'distribution are not known to us',
  ),
  Published(
    'imagenet',
    {'method': 'topkast', 'density': 0.1, 'backward_ratio': 2.0},
    0.725,
    SPARSEML,
    SECOND_HAND,
    "that project's own run; its recipe is not known to us",
  ),
  *_imagenet(
    STR,
    {0.2: 76.12, 0.1: 74.31, 0.05: 70.23, 0.02: 61.46, 0.01: 51.82},
    method='str',
  ),
  *_imagenet(
    ACDC, {0.2: 76.45, 0.1: 75.03, 0.05: 73.14, 0.02: 68.48}, method='ac/dc'
  ),
  *_imagenet(ST3, {1.0: 77.10}, method='dense, as in st-3'),
  *_imagenet(
    ST3,
    {0.2: 76.95, 0.1: 76.03, 0.05: 74.46, 0.02: 70.46, 0.01: 63.88},
    method='st-3',
  ),
  *_imagenet(JAXPRUNER, {0.2: 75.53}, method='jaxpruner magnitude'),
  *_imagenet(JAXPRUNER, {0.2: 74.75}, method='jaxpruner rigl'),
  *_imagenet(JAXPRUNER, {0.2: 74.57}, method='jaxpruner set'),
  *_imagenet(JAXPRUNER, {0.2: 71.34}, method='jaxpruner static'),
  _text('enwik8', 1.06, 512),
  _text('enwik8', 0.99, 1024),
  _text('wikitext103', 24.03, 410),
  _text('wikitext103', 18.3, 1024),
  _port(1.0, 0.043, 31.4),
  _port(2.0, 0.043, 87.4),
  _port(1.0, 0.016, 18.9),
  _port(4.0, 0.016, 67.3),
)
