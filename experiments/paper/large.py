"""The tables of ImageNet and of language models.

Their rows are variants of `configs/methods.py`.
"""

from experiments.paper import image
from experiments.paper import table as table_lib

Row, Column, Table = table_lib.Row, table_lib.Column, table_lib.Table
EXAMPLES = 32_000 * 4_096  # seen in training by the ImageNet recipe
_DATA = table_lib.DATA
_TWICE, _HAM = {'backward_ratio': 2.0}, {'ham': 1}
SMALL, SEEDS = 'text_transformer_xl.py', '--config.seeds=(0,1,2)'
# (label, variant of the config, facts)
_DENSE, *_LARGE = (
  (label, variant, {'method': method, 'alpha': alpha, **more})
  for label, variant, method, alpha, more in (
    ('dense', 'dense', 'dense', 1.0, {}),
    ('Top-KAST', 'topkast', 'topkast', 1.0, _TWICE),
    ('Top-KAST + Powerprop.', 'powerprop_topkast', 'topkast', 1.375, _TWICE),
    ('Top-KAST + HAM', 'topkast', 'topkast', 1.0, _TWICE | _HAM),
    ('gradual', 'gradual', 'gradual', 1.0, {}),
    ('gradual + Powerprop.', 'powerprop_gradual', 'gradual', 1.375, {}),
    ('AC/DC', 'acdc', 'acdc', 1.0, {}),
    ('AC/DC + HAM', 'acdc', 'acdc', 1.0, _HAM),
    ('RigL', 'rigl', 'rigl', 1.0, {}),
    ('RigL + HAM', 'rigl', 'rigl', 1.0, _HAM),
    ('SET', 'set', 'set', 1.0, {}),
    ('static', 'static', 'static', 1.0, {}),
    ('static + HAM', 'static', 'static', 1.0, _HAM),
  )
)
_EXTENDED = ('Top-KAST', 'Top-KAST + Powerprop.', 'RigL')
_DENSE_HAM = ('dense + HAM', 'dense', _DENSE[2] | _HAM)


def _columns(metric: str, *densities: float) -> tuple[Column, ...]:
  """Returns the dense column and one for each density."""
  sparse = (
    Column(f'{100 - 100 * density:g}% sparse', {'density': density}, metric)
    for density in densities
  )
  return (Column('dense', {'density': 1.0}, metric), *sparse)


def imagenet() -> Table:
  """Returns the table of ResNet-50, by distribution and length."""
  file, facts = 'imagenet_resnet50.py', _DENSE[2] | {'examples': EXAMPLES}
  rows = [Row(('dense', '', '1x'), facts)]
  rows.append(Row((_DENSE_HAM[0], '', '1x'), facts | _HAM))
  for label, _, where in _LARGE:
    for kind, name, length in (
      ('uniform', 'uniform', 1), ('erdos_renyi_kernel', 'ERK', 1),
      ('erdos_renyi_kernel', 'ERK', 5),
    ):  # fmt: skip
      if length == 1 or label in _EXTENDED:
        facts = {'distribution': kind, 'examples': length * EXAMPLES}
        rows.append(Row((label, name, f'{length}x'), where | facts))
  return Table(
    'imagenet', 'ResNet-50 on ImageNet, top-1 accuracy',
    ('method', 'distribution', 'length'),
    {'data': 'imagenet', 'model': 'resnet50', 'share': None, 'ham': 0},
    tuple(rows),
    _columns('accuracy', 0.2, 0.1, 0.05, 0.02, 0.01),
    tuple(
      table_lib.launch(file, f'imagenet/{k}', f'--sweep=imagenet_{k}', _DATA)
      for k in ('dense_to_sparse', 'sparse_to_sparse', 'extended')
    ),
    against=({'alpha': 1.0}, {'method': 'rigl', 'alpha': 1.0}, {'ham': 0}),
    varies=('train.num_steps', 'optimizer.schedule.'),
  )  # fmt: skip


def photographs() -> Table:
  """Returns the table of a few full-size steps in two dtypes."""
  name = 'photographs'
  losses = {'steps 1-2': 'first_loss', 'steps 3-4': 'last_loss'}
  return Table(
    name, f'ResNet-50 on {name}: the loss of a few steps of every method',
    ('method',),
    {'data': 'imagenet', 'model': 'resnet50', 'num_steps': 4, 'share': None},
    tuple(
      Row((variant,), where)
      for _, variant, where in (_DENSE, *reversed(_LARGE))
      if 'ham' not in where
    ),
    tuple(
      Column(f'{dtype}: {label}', {'compute_dtype': dtype}, metric)
      for dtype in ('float32', 'bfloat16')
      for label, metric in {**losses, 'afterwards': 'loss'}.items()
    ),
    (table_lib.launch(f'{name}_resnet50.py', name, f'--sweep={name}', _DATA),),
    across=('model.compute_dtype',), plots='',
  )  # fmt: skip


def small_text() -> Table:
  """Returns the table of a small model on the text in the repository."""
  (_, plain), (_, powered), *_ = image.VARIANTS
  whole = {'d_model': 224, 'num_steps': 1_500}
  rows = [Row(('dense', '100%'), {'method': 'dense', **whole})]
  for kept, width, num_steps in (
    ('20%', 100, 522), ('10%', 70, 344), ('5%', 50, 256),
  ):  # fmt: skip
    for equal, facts in (
      ('parameters', {'d_model': width}), ('FLOPs', {'num_steps': num_steps}),
    ):  # fmt: skip
      facts = {'method': 'dense', **whole, **facts}
      rows.append(Row((f'dense, equal {equal}', kept), facts))
  twice = ((0.2, 0.4), (0.1, 0.2), (0.05, 0.1))
  single = tuple((a, None) for a, _ in twice)
  for label, method, facts, densities in (
    ('Top-KAST', 'topkast', plain, twice),
    ('Top-KAST, dense backward', 'topkast', plain, ((0.1, 1.0),)),
    ('Top-KAST + Powerprop.', 'topkast', powered, twice),
    ('gradual', 'gradual', plain, single),
    ('RigL', 'rigl', plain, single),
    ('static', 'static', plain, single),
  ):
    for a, b in densities:
      own, kept = {'density': a}, f'{100 * a:g}%'
      if b:
        own |= {'backward_density': b, 'storage': 'masked'}
        kept = f'{kept} / {100 * b:g}%'
      own |= {'method': method, **whole, **facts}
      rows.append(Row((label, kept), own))
  return Table(
    'text', 'A small Transformer-XL on the King James text',
    ('method', 'D / B'), {'data': 'kjv', **plain, 'pattern': None},
    tuple(rows),
    (Column('bits per character', {}, 'bits_per_character'),),
    (table_lib.launch(SMALL, 'text', '--sweep=text', SEEDS),),
    extra=('density', 'inference_share', 'train_flops', 'num_bytes'), panel=1,
    # The dense rivals are smaller, or trained for less long.
    varies=(image.RATE, 'model.', 'train.num_steps', 'optimizer.schedule.'),
  )  # fmt: skip


def text_cost() -> Table:
  """Returns dense models of three widths against compact Top-KAST."""
  rows = [
    Row(('dense', '', f'{width}'), {'method': 'dense', 'd_model': width})
    for width in (70, 122, 224)
  ]
  for a in (0.2, 0.1, 0.05):
    facts = {'method': 'topkast', 'density': a, 'backward_density': 2 * a}
    facts |= {'storage': 'compact', 'refresh_every': 10, 'd_model': 224}
    label = f'{100 * a:g}% / {200 * a:g}%'
    rows.append(Row(('Top-KAST', label, '224'), facts))
  where = {'data': 'kjv', 'num_steps': 1_500, 'powerprop': 0, 'ham': 0}
  return Table(
    'text_cost', 'The cost of training a small Transformer-XL',
    ('method', 'D / B', 'width'), where, tuple(rows),
    (Column('bits per character', {}, 'bits_per_character'),),
    (table_lib.launch(SMALL, 'text_cost', '--sweep=cost_text', SEEDS),),
    varies=(image.RATE, 'model.'), plots='cost', extra=image.COSTS,
  )  # fmt: skip


def text(name: str, title: str, metric: str, base: int) -> Table:
  """Returns the table of a published text; `base` is the smaller width."""
  widths = {'base': base, 'large': 1024}
  return Table(
    name, f'Transformer-XL on {title}', ('method', 'size'),
    {'data': name, 'ham': 0},
    tuple(
      Row((label, size), {**where, 'd_model': width})
      for size, width in widths.items()
      for label, _, where in (_DENSE, _DENSE_HAM, *_LARGE)
    ),
    _columns(metric, 0.2, 0.1, 0.05),
    tuple(
      table_lib.launch(
        f'{name}_transformer_xl.py:size={size}', f'{name}_{size}',
        '--sweep=language', '--config.data.path=PATH',
      )
      for size in widths
    ),
    against=({'alpha': 1.0}, {'ham': 0}), panel=1,
    # Each size has its own recipe.
    varies=('model.', 'optimizer.', 'train.', 'evaluation.'),
  )  # fmt: skip
