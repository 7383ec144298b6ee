"""The tables of ImageNet, the photographs, and language models, as data."""

from experiments.paper import table as table_lib

EXAMPLES = 32_000 * 4_096  # seen in training by the ImageNet recipe

_LAUNCH = 'python launch.py --config=configs/'
_RUNS = ' --workdir=runs/paper/'
_PLAIN, _POWERED = {'alpha': 1.0}, {'alpha': 1.375}
_TOPKAST = {'method': 'topkast', 'backward_ratio': 2.0}
_DENSE = {'method': 'dense', **_PLAIN}

# (label, variant of the config, facts)
_METHODS = (
  ('Top-KAST', 'topkast', {**_TOPKAST, **_PLAIN}),
  ('Top-KAST + Powerprop.', 'powerprop_topkast', {**_TOPKAST, **_POWERED}),
  ('gradual', 'magnitude', {'method': 'gradual', **_PLAIN}),
  (
    'gradual + Powerprop.',
    'powerprop_magnitude',
    {'method': 'gradual', **_POWERED},
  ),
  ('RigL', 'rigl', {'method': 'rigl', **_PLAIN}),
  ('SET', 'set', {'method': 'set', **_PLAIN}),
  ('static', 'static', {'method': 'static', **_PLAIN}),
)
_DISTRIBUTIONS = {'uniform': 'uniform', 'erdos_renyi_kernel': 'ERK'}


def _columns(
  densities: tuple[float, ...], metric: str
) -> tuple[table_lib.Column, ...]:
  return tuple(
    table_lib.Column(
      f'{100 - 100 * density:g}% sparse' if density < 1 else 'dense',
      {'density': density},
      metric,
    )
    for density in densities
  )


def _imagenet_row(
  name: str,
  variant: str,
  where: table_lib.Facts,
  distribution: str,
  length: int,
) -> table_lib.Row:
  is_dense = where['method'] == 'dense'
  return table_lib.Row(
    (name, '' if is_dense else _DISTRIBUTIONS[distribution], f'{length}x'),
    {
      **where,
      **({} if is_dense else {'distribution': distribution}),
      'examples': length * EXAMPLES,
    },
    f'{variant},distribution={distribution},length={length}',
  )


def _imagenet() -> table_lib.Table:
  rows = [_imagenet_row('dense', 'dense', _DENSE, 'uniform', 1)]
  for method in _METHODS:
    rows += [_imagenet_row(*method, kind, 1) for kind in _DISTRIBUTIONS]
    if method[0].startswith(('Top-KAST', 'RigL')):
      rows.append(_imagenet_row(*method, 'erdos_renyi_kernel', 5))
  data = ' --config.data.data_dir=DATA'
  return table_lib.Table(
    'imagenet',
    'ResNet-50 on ImageNet, top-1 accuracy',
    ('method', 'distribution', 'length'),
    {'data': 'imagenet', 'model': 'resnet50', 'share': None},
    tuple(rows),
    _columns((1.0, 0.2, 0.1, 0.05, 0.02, 0.01), 'accuracy'),
    f'{_LAUNCH}imagenet_resnet50.py:{{variant}},density={{density}},'
    f'backward_density={{twice}}{data}{_RUNS}imagenet/{{name}}',
    tuple(
      f'{_LAUNCH}imagenet_resnet50.py --sweep=imagenet_{sweep}{data}{_RUNS}'
      f'imagenet/{sweep}'
      for sweep in ('dense_to_sparse', 'sparse_to_sparse', 'extended')
    ),
    against=({'alpha': 1.0}, {'method': 'rigl', 'alpha': 1.0}),
    varies=('train.num_steps', 'optimizer.schedule.'),
  )


def _text(
  name: str, title: str, metric: str, widths: dict[str, int]
) -> table_lib.Table:
  data = ' --config.data.path=PATH'
  return table_lib.Table(
    name,
    title,
    ('method', 'size'),
    {'data': name},
    tuple(
      table_lib.Row(
        (label, size), {**where, 'd_model': width}, f'{variant},size={size}'
      )
      for size, width in widths.items()
      for label, variant, where in (('dense', 'dense', _DENSE), *_METHODS)
    ),
    _columns((1.0, 0.2, 0.1, 0.05), metric),
    f'{_LAUNCH}{name}_transformer_xl.py:{{variant}},density={{density}},'
    f'backward_density={{twice}}{data}{_RUNS}{name}/{{name}}',
    tuple(
      f'{_LAUNCH}{name}_transformer_xl.py:size={size} --sweep=language{data}'
      f'{_RUNS}{name}_{size}'
      for size in widths
    ),
    against=({'alpha': 1.0},),
    # Each size has its own recipe.
    varies=('model.', 'optimizer.', 'train.', 'evaluation.'),
    panel=1,
  )


def _small_text() -> table_lib.Table:
  """Returns the table of a small model on the text in the repository."""
  rows = [table_lib.Row(('dense', ''), {**_DENSE, 'density': 1.0}, 'dense')]
  (plain, powered), pairs = _METHODS[:2], ((0.1, 0.2), (0.1, 1.0), (0.05, 0.1))
  for method, (forward, backward) in (
    (plain, (0.2, 0.4)),
    *((plain, pair) for pair in pairs),
    (powered, (0.2, 0.4)),
  ):
    name, variant, where = method
    densities = {
      'density': forward,
      'backward_density': backward,
      'backward_ratio': round(backward / forward, 6),
    }
    rows.append(
      table_lib.Row(
        (name, f'{100 * forward:g}% / {100 * backward:g}%'),
        {**where, **densities},
        f'{variant},density={forward:g},backward_density={backward:g}',
      )
    )
  static = {'method': 'static', **_PLAIN, 'density': 0.2}
  rows.append(table_lib.Row(('static', '20%'), static, 'static,density=0.2'))
  seeds = " '--config.seeds=(0,1,2)'"
  return table_lib.Table(
    'text',
    'A small Transformer-XL on the King James text',
    ('method', 'D / B'),
    {'data': 'kjv'},
    tuple(rows),
    (table_lib.Column('bits per character', {}, 'bits_per_character'),),
    f'{_LAUNCH}text_transformer_xl.py:{{variant}}{seeds}{_RUNS}text/{{name}}',
    (f'{_LAUNCH}text_transformer_xl.py --sweep=text{seeds}{_RUNS}text',),
    extra=('density', 'inference_share', 'train_share'),
  )


def _photographs() -> table_lib.Table:
  """Returns the table of a few full-size steps in two dtypes."""
  labels = {
    'first_loss': 'steps 1-2',
    'last_loss': 'steps 3-4',
    'loss': 'afterwards',
  }
  data = ' --config.data.data_dir=DATA'
  return table_lib.Table(
    'photographs',
    'ResNet-50 on photographs: the loss of a few steps of every method',
    ('method',),
    {'data': 'imagenet', 'model': 'resnet50', 'num_steps': 4, 'share': None},
    tuple(
      table_lib.Row((variant,), where, variant)
      for _, variant, where in (('', 'dense', _DENSE), *reversed(_METHODS))
    ),
    tuple(
      table_lib.Column(f'{dtype}: {label}', {'compute_dtype': dtype}, metric)
      for dtype in ('float32', 'bfloat16')
      for metric, label in labels.items()
    ),
    f'{_LAUNCH}photographs_resnet50.py:{{variant}} '
    f'--config.model.compute_dtype={{compute_dtype}}{data}'
    f'{_RUNS}photographs/{{variant}}_{{compute_dtype}}',
    (
      f'{_LAUNCH}photographs_resnet50.py --sweep=photographs{data}{_RUNS}'
      'photographs',
    ),
    across=('model.compute_dtype',),
    has_plots=False,
  )


TABLES = (
  _imagenet(),
  _photographs(),
  _small_text(),
  _text(
    'enwik8',
    'Transformer-XL on enwik8, bits per character',
    'bits_per_character',
    {'base': 512, 'large': 1024},
  ),
  _text(
    'wikitext103',
    'Transformer-XL on WikiText-103, perplexity',
    'perplexity',
    {'base': 410, 'large': 1024},
  ),
)
