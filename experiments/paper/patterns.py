"""The tables of Top-KAST's patterns, in a perceptron and a language model."""

from experiments.paper import image
from experiments.paper import large
from experiments.paper import table as table_lib

Row, Column, Table = table_lib.Row, table_lib.Column, table_lib.Table
# (label, fact)
_PATTERNS = (
  ('single entries', None), ('fan-in', 'fan_in'), ('2 of 4', 'n_of_m 2 4'),
  *((f'{n} x {n}', f'block {n} {n}') for n in (4, 16, 64, 128)),
)  # fmt: skip
_SWEEP = '--sweep=patterns'


def fashion() -> Table:
  """Returns the table of a perceptron on Fashion-MNIST."""
  return _patterns(
    'fashion_patterns', 'Fashion-MNIST, LeNet-300-100',
    {**image.LENET_TOPKAST, **image.CHOICES},
    table_lib.launch(
      'fashion_topkast.py', 'fashion_patterns', _SWEEP, table_lib.DATA
    ),
    Column('alpha 1', {}, 'accuracy'),
    Column('alpha 2 (Powerprop.)', {'alpha': 2.0}, 'accuracy'),
  )  # fmt: skip


def text() -> Table:
  """Returns the table of a small Transformer-XL."""
  where = {'data': 'kjv', 'd_model': 224, 'num_steps': 750, 'alpha': 1.0}
  return _patterns(
    'text_patterns', 'the King James text, a small Transformer-XL',
    {**where, 'method': 'topkast', 'refresh_every': 1, 'ham': 0},
    table_lib.launch(
      f'{large.SMALL}:topkast,num_steps=750', 'text_patterns', _SWEEP,
      large.SEEDS,
    ),
    Column('bits per character', {}, 'bits_per_character'), panel=0,
  )  # fmt: skip


def _patterns(
  name: str, title: str, where, sweep: str, *columns, panel: int | None = None
) -> Table:
  """Returns the table of patterns at two densities."""
  rows = (
    Row(
      (f'{100 * a:g}% / {200 * a:g}%', label),
      {'density': a, 'backward_density': 2 * a, 'pattern': pattern},
    )
    for a in (0.2, 0.1)
    for label, pattern in _PATTERNS
  )
  return Table(
    name, f'Patterns of Top-KAST on {title}', ('D / B', 'pattern'), where,
    tuple(rows), columns, (sweep,), against=({'pattern': None},),
    across=(image.RATE,), varies=(image.RATE,), extra=('density',),
    plots='choices', panel=panel,
  )  # fmt: skip
