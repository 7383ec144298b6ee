"""The tables of ImageNet, enwik8 and WikiText-103."""

from typing import Any

from experiments.paper import spec

EXAMPLES = 32_000 * 4_096  # of the recipe for ImageNet

_LAUNCH = 'python launch.py --config=configs/'
_PLAIN, _POWERED = {'alpha': 1.0}, {'alpha': 1.375}
_UNIFORM = {'distribution': 'uniform'}
_ERK = {'distribution': 'erdos_renyi_kernel'}
_TWICE = {'backward_ratio': 2.0}

# (label, variant of the config, facts)
_METHODS = (
  ('Top-KAST', 'topkast', {'method': 'topkast', **_TWICE, **_PLAIN}),
  (
    'Top-KAST + Powerprop.',
    'powerprop_topkast',
    {'method': 'topkast', **_TWICE, **_POWERED},
  ),
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
_DENSE = {'method': 'dense', **_PLAIN}
_OTHERS = (
  'STR', 'AC/DC', 'dense, as in ST-3', 'ST-3', 'jaxpruner magnitude',
  'jaxpruner RigL', 'jaxpruner SET', 'jaxpruner static',
)  # fmt: skip


def _columns(
  densities: tuple[float, ...], figure: str
) -> tuple[spec.Column, ...]:
  return tuple(
    spec.Column(
      f'{100 - 100 * density:g}% sparse' if density < 1 else 'dense',
      {'density': density},
      figure,
    )
    for density in densities
  )


def _imagenet_row(
  name: str,
  variant: str,
  where: dict[str, Any],
  distribution: dict[str, str],
  length: int,
) -> spec.Row:
  [kind] = distribution.values()
  short = {'uniform': 'uniform', 'erdos_renyi_kernel': 'ERK'}[kind]
  if where['method'] == 'dense':
    distribution, short = {}, ''
  return spec.Row(
    (name, short, f'{length}x'),
    {**where, **distribution, 'examples': length * EXAMPLES},
    f'{variant},distribution={kind},length={length}',
  )


def _imagenet() -> spec.Table:
  rows = [_imagenet_row('dense', 'dense', _DENSE, _UNIFORM, 1)]
  for method in _METHODS:
    rows += [
      _imagenet_row(*method, distribution, 1)
      for distribution in (_UNIFORM, _ERK)
    ]
    if method[0].startswith(('Top-KAST', 'RigL')):
      rows.append(_imagenet_row(*method, _ERK, 5))
  rows += [
    spec.Row((name, '', ''), {'method': name.lower()}, is_ours=False)
    for name in _OTHERS
  ]
  return spec.Table(
    'imagenet',
    'ResNet-50 on ImageNet, top-1 accuracy',
    ('method', 'distribution', 'length'),
    {'data': 'imagenet', 'model': 'resnet50', 'share': None},
    tuple(rows),
    _columns((1.0, 0.2, 0.1, 0.05, 0.02, 0.01), 'accuracy'),
    f'{_LAUNCH}imagenet_resnet50.py:{{variant}},density={{density}},'
    'backward_density={twice} --config.data.data_dir=DATA '
    '--workdir=runs/paper/imagenet/{name}',
    against=({'alpha': 1.0}, {'method': 'rigl', 'alpha': 1.0}),
    varies=('train.num_steps', 'optimizer.schedule.'),
    sweeps=tuple(
      f'{_LAUNCH}imagenet_resnet50.py --sweep=imagenet_{sweep} '
      f'--config.data.data_dir=DATA --workdir=runs/paper/imagenet/{sweep}'
      for sweep in ('dense_to_sparse', 'sparse_to_sparse', 'extended')
    ),
  )


def _text(
  name: str, data: str, title: str, figure: str, widths: dict[str, int]
) -> spec.Table:
  methods = (('dense', 'dense', _DENSE), *_METHODS)
  return spec.Table(
    name,
    title,
    ('method', 'size'),
    {'data': data},
    tuple(
      spec.Row(
        (label, size), {**where, 'd_model': width}, f'{variant},size={size}'
      )
      for size, width in widths.items()
      for label, variant, where in methods
    ),
    _columns((1.0, 0.2, 0.1, 0.05), figure),
    f'{_LAUNCH}{name}_transformer_xl.py:{{variant}},density={{density}},'
    'backward_density={twice} --config.data.path=PATH '
    f'--workdir=runs/paper/{name}/{{name}}',
    against=({'alpha': 1.0},),
    # Each size has its recipe.
    varies=('model.', 'optimizer.', 'train.', 'evaluation.'),
    panel=1,
    sweeps=tuple(
      f'{_LAUNCH}{name}_transformer_xl.py:size={size} --sweep=language '
      f'--config.data.path=PATH --workdir=runs/paper/{name}_{size}'
      for size in widths
    ),
  )


def _small_text() -> spec.Table:
  """Returns the table of a small model on the text that comes with this."""
  topkast, powered = dict(_METHODS[0][2]), dict(_METHODS[1][2])
  rows = [spec.Row(('dense', ''), {**_DENSE, 'density': 1.0}, 'dense')]
  for name, variant, where, forward, backward in (
    ('Top-KAST', 'topkast', topkast, 0.2, 0.4),
    ('Top-KAST', 'topkast', topkast, 0.1, 0.2),
    ('Top-KAST', 'topkast', topkast, 0.1, 1.0),
    ('Top-KAST', 'topkast', topkast, 0.05, 0.1),
    ('Top-KAST + Powerprop.', 'powerprop_topkast', powered, 0.2, 0.4),
  ):
    sets = {'density': forward, 'backward_density': backward}
    where = {**where, **sets, 'backward_ratio': round(backward / forward, 6)}
    rows.append(
      spec.Row(
        (name, f'{100 * forward:g}% / {100 * backward:g}%'),
        where,
        f'{variant},density={forward:g},backward_density={backward:g}',
      )
    )
  static = {'method': 'static', **_PLAIN, 'density': 0.2}
  rows.append(spec.Row(('static', '20%'), static, 'static,density=0.2'))
  return spec.Table(
    'text',
    'A small Transformer-XL on the King James text',
    ('method', 'D / B'),
    {'data': 'kjv'},
    tuple(rows),
    (spec.Column('bits per character', {}, 'bits_per_character'),),
    f'{_LAUNCH}text_transformer_xl.py:{{variant}} '
    "'--config.seeds=(0,1,2)' --workdir=runs/paper/text/{name}",
    against=({'method': 'dense'},),
    extra=('active', 'inference_share', 'train_share'),
    sweeps=(
      f'{_LAUNCH}text_transformer_xl.py --sweep=text '
      "'--config.seeds=(0,1,2)' --workdir=runs/paper/text",
    ),
  )


def _photographs() -> spec.Table:
  """Returns the table of a few steps at full size, in two types."""
  labels = {
    'first_loss': 'steps 1-2',
    'last_loss': 'steps 3-4',
    'loss': 'afterwards',
  }
  return spec.Table(
    'photographs',
    'ResNet-50 on photographs: the loss of a few steps of every method',
    ('method',),
    {'data': 'imagenet', 'model': 'resnet50', 'num_steps': 4, 'share': None},
    tuple(
      spec.Row((variant,), where, variant)
      for _, variant, where in (('', 'dense', _DENSE), *reversed(_METHODS))
    ),
    tuple(
      spec.Column(f'{dtype}: {label}', {'compute_dtype': dtype}, figure)
      for dtype in ('float32', 'bfloat16')
      for figure, label in labels.items()
    ),
    f'{_LAUNCH}photographs_resnet50.py:{{variant}} '
    '--config.model.compute_dtype={compute_dtype} '
    '--config.data.data_dir=DATA '
    '--workdir=runs/paper/photographs/{variant}_{compute_dtype}',
    across=('model.compute_dtype',),
    sweeps=(
      f'{_LAUNCH}photographs_resnet50.py --sweep=photographs '
      '--config.data.data_dir=DATA --workdir=runs/paper/photographs',
    ),
    has_plots=False,
  )


TABLES = (
  _imagenet(),
  _photographs(),
  _small_text(),
  _text(
    'enwik8',
    'enwik8',
    'Transformer-XL on enwik8, bits per character',
    'bits_per_character',
    {'base': 512, 'large': 1024},
  ),
  _text(
    'wikitext103',
    'wikitext103',
    'Transformer-XL on WikiText-103, perplexity',
    'perplexity',
    {'base': 410, 'large': 1024},
  ),
)
