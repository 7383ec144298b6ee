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


_OTHER = 'another method, with its own recipe'
_QUOTED = (
  "the paper's value as that project quotes it; recipe and distribution are "
  'unknown to us'
)
_OWN_RUN = "that project's own run; its recipe is unknown to us"
_RECIPE = 'learning rate 0.01, momentum 0.9, batch 128, 20 epochs'
_TOPKAST = ('Top-KAST, 10% / 20%', '', '')

# Top-1 accuracies: labels, source, difference, values by percentage of zeros.
_IMAGENET = (
  (('dense', '', '1x'), RIGL, '', {0: 76.8}),
  (('RigL', 'uniform', '1x'), RIGL, '', {80: 74.60, 90: 72.02}),
  (('RigL', 'ERK', '1x'), RIGL, '', {80: 75.12, 90: 73.07}),
  (
    ('RigL', 'ERK', '5x'), RIGL, '',
    {80: 77.17, 90: 76.42, 95: 74.63, 99: 61.86},
  ),
  (_TOPKAST, SPARSEML, _QUOTED, {90: 73.0}),
  (_TOPKAST, SPARSEML, _OWN_RUN, {90: 72.5}),
  (
    ('STR', '', ''), STR, _OTHER,
    {80: 76.12, 90: 74.31, 95: 70.23, 98: 61.46, 99: 51.82},
  ),
  (
    ('AC/DC', '', ''), ACDC, _OTHER,
    {80: 76.45, 90: 75.03, 95: 73.14, 98: 68.48},
  ),
  (('dense, as in ST-3', '', ''), ST3, _OTHER, {0: 77.10}),
  (
    ('ST-3', '', ''), ST3, _OTHER,
    {80: 76.95, 90: 76.03, 95: 74.46, 98: 70.46, 99: 63.88},
  ),
  (('jaxpruner magnitude', '', ''), JAXPRUNER, _OTHER, {80: 75.53}),
  (('jaxpruner RigL', '', ''), JAXPRUNER, _OTHER, {80: 74.75}),
  (('jaxpruner SET', '', ''), JAXPRUNER, _OTHER, {80: 74.57}),
  (('jaxpruner static', '', ''), JAXPRUNER, _OTHER, {80: 71.34}),
)  # fmt: skip
PUBLISHED = (
  *(
    Published(
      'imagenet',
      labels,
      {f'{k}% sparse' if k else 'dense': x for k, x in values.items()},
      source,
      differs,
    )
    for labels, source, differs, values in _IMAGENET
  ),
  *(
    Published(table, ('dense', size), {'dense': value}, TRANSFORMER_XL)
    for table, size, value in (
      ('enwik8', 'base', 1.06), ('enwik8', 'large', 0.99),
      ('wikitext103', 'base', 24.03), ('wikitext103', 'large', 18.3),
    )
  ),
  Published(
    'mnist_pruning', ('4.3',), {'alpha 1': 31.4, 'alpha 2': 87.4}, PORT, _RECIPE
  ),
  Published(
    'mnist_pruning', ('1.6',), {'alpha 1': 18.9, 'alpha 4': 67.3}, PORT, _RECIPE
  ),
)  # fmt: skip
