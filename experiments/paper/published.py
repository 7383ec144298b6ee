"""Published values, each with its source.

The tables of the two papers could not be read: a value is here because released
code, its documentation or another project states it.
"""

from typing import NamedTuple

RIGL = 'https://github.com/google-research/rigl'
STR = 'https://github.com/RAIVNLab/STR'
ACDC = 'https://github.com/IST-DASLab/ACDC'
ST3 = 'https://github.com/vanderschuea/stthree'
JAXPRUNER = 'https://github.com/google-research/jaxpruner'
TRANSFORMER_XL = 'https://github.com/kimiyoung/transformer-xl'
SPARSEML = 'https://github.com/neuralmagic/sparseml'
PORT = 'https://github.com/dlpbc/powerpropagation-pytorch'


class Published(NamedTuple):
  """Published values of one row: in percent, or as the metric is printed."""

  table: str
  labels: tuple[str, ...]  # of a row of the table, or of another method
  values: dict[str, float]  # by column
  source: str
  differs: str = ''  # from this table's training; '' if trained alike


def of_table(name: str) -> list[Published]:
  """Returns the published values of a table."""
  return [published for published in PUBLISHED if published.table == name]


def _imagenet(
  labels: tuple[str, ...],
  source: str,
  values: dict[float, float],
  differs: str = '',
) -> Published:
  """Returns top-1 accuracies by density."""
  columns = {
    f'{100 - 100 * density:g}% sparse' if density < 1 else 'dense': percent
    for density, percent in values.items()
  }
  return Published('imagenet', labels, columns, source, differs)


def _port(level: str, values: dict[str, float]) -> Published:
  differs = 'learning rate 0.01, momentum 0.9, batch 128, 20 epochs'
  return Published('mnist_pruning', (level,), values, PORT, differs)


_OTHER = 'another method, with its own recipe'
_TOPKAST = ('Top-KAST, 10% / 20%', '', '')
PUBLISHED = (
  _imagenet(('dense', '', '1x'), RIGL, {1.0: 76.8}),
  _imagenet(('RigL', 'uniform', '1x'), RIGL, {0.2: 74.60, 0.1: 72.02}),
  _imagenet(('RigL', 'ERK', '1x'), RIGL, {0.2: 75.12, 0.1: 73.07}),
  _imagenet(
    ('RigL', 'ERK', '5x'),
    RIGL,
    {0.2: 77.17, 0.1: 76.42, 0.05: 74.63, 0.01: 61.86},
  ),
  _imagenet(
    _TOPKAST,
    SPARSEML,
    {0.1: 73.0},
    "the paper's value as that project quotes it; recipe and distribution are "
    'unknown to us',
  ),
  _imagenet(
    _TOPKAST,
    SPARSEML,
    {0.1: 72.5},
    "that project's own run; its recipe is unknown to us",
  ),
  _imagenet(
    ('STR', '', ''),
    STR,
    {0.2: 76.12, 0.1: 74.31, 0.05: 70.23, 0.02: 61.46, 0.01: 51.82},
    _OTHER,
  ),
  _imagenet(
    ('AC/DC', '', ''),
    ACDC,
    {0.2: 76.45, 0.1: 75.03, 0.05: 73.14, 0.02: 68.48},
    _OTHER,
  ),
  _imagenet(('dense, as in ST-3', '', ''), ST3, {1.0: 77.10}, _OTHER),
  _imagenet(
    ('ST-3', '', ''),
    ST3,
    {0.2: 76.95, 0.1: 76.03, 0.05: 74.46, 0.02: 70.46, 0.01: 63.88},
    _OTHER,
  ),
  *(
    _imagenet((f'jaxpruner {name}', '', ''), JAXPRUNER, {0.2: value}, _OTHER)
    for name, value in (
      ('magnitude', 75.53), ('RigL', 74.75), ('SET', 74.57), ('static', 71.34),
    )
  ),
  *(
    Published(table, ('dense', size), {'dense': value}, TRANSFORMER_XL)
    for table, size, value in (
      ('enwik8', 'base', 1.06), ('enwik8', 'large', 0.99),
      ('wikitext103', 'base', 24.03), ('wikitext103', 'large', 18.3),
    )
  ),
  _port('4.3', {'alpha 1': 31.4, 'alpha 2': 87.4}),
  _port('1.6', {'alpha 1': 18.9, 'alpha 4': 67.3}),
)  # fmt: skip
