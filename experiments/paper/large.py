"""The tables of ImageNet, the photographs, and language models, as data."""

from experiments.paper import table as table_lib

EXAMPLES = 32_000 * 4_096  # seen in training by the ImageNet recipe

_DENSE = ('dense', 'dense', {'method': 'dense', 'alpha': 1.0})
# (label, variant of the config, facts)
_METHODS = tuple(
  (label, variant, {'method': method, 'alpha': alpha} | more)
  for label, variant, method, alpha, more in (
    ('Top-KAST', 'topkast', 'topkast', 1.0, {'backward_ratio': 2.0}),
    (
      'Top-KAST + Powerprop.', 'powerprop_topkast', 'topkast', 1.375,
      {'backward_ratio': 2.0},
    ),
    ('gradual', 'magnitude', 'gradual', 1.0, {}),
    ('gradual + Powerprop.', 'powerprop_magnitude', 'gradual', 1.375, {}),
    ('RigL', 'rigl', 'rigl', 1.0, {}),
    ('SET', 'set', 'set', 1.0, {}),
    ('static', 'static', 'static', 1.0, {}),
  )
)  # fmt: skip
_DISTRIBUTIONS = {'uniform': 'uniform', 'erdos_renyi_kernel': 'ERK'}
_VARIANT = ':{variant},density={density},backward_density={twice}'


def _columns(densities: tuple[float, ...], metric: str):
  return tuple(
    table_lib.Column(
      f'{100 - 100 * density:g}% sparse' if density < 1 else 'dense',
      {'density': density},
      metric,
    )
    for density in densities
  )


def _imagenet() -> table_lib.Table:
  rows = []
  for name, variant, where in (_DENSE, *_METHODS):
    lengths = [('uniform', 1), ('erdos_renyi_kernel', 1)]
    if name.startswith(('Top-KAST', 'RigL')):
      lengths.append(('erdos_renyi_kernel', 5))
    if name == 'dense':
      lengths = lengths[:1]
    for kind, length in lengths:
      label, distribution = _DISTRIBUTIONS[kind], {'distribution': kind}
      if name == 'dense':
        label, distribution = '', {}
      rows.append(
        table_lib.Row(
          (name, label, f'{length}x'),
          {**where, **distribution, 'examples': length * EXAMPLES},
          f'{variant},distribution={kind},length={length}',
        )
      )
  file, data = 'imagenet_resnet50.py', '--config.data.data_dir=DATA'
  sweeps = (
    table_lib.launch(file, f'imagenet/{k}', f'--sweep=imagenet_{k} {data}')
    for k in ('dense_to_sparse', 'sparse_to_sparse', 'extended')
  )  # fmt: skip
  return table_lib.Table(
    'imagenet', 'ResNet-50 on ImageNet, top-1 accuracy',
    ('method', 'distribution', 'length'),
    {'data': 'imagenet', 'model': 'resnet50', 'share': None}, tuple(rows),
    _columns((1.0, 0.2, 0.1, 0.05, 0.02, 0.01), 'accuracy'),
    table_lib.launch(f'{file}{_VARIANT}', 'imagenet/{name}', data),
    tuple(sweeps),
    against=({'alpha': 1.0}, {'method': 'rigl', 'alpha': 1.0}),
    varies=('train.num_steps', 'optimizer.schedule.'),
  )  # fmt: skip


def _text(
  name: str, title: str, metric: str, widths: dict[str, int]
) -> table_lib.Table:
  file, data = f'{name}_transformer_xl.py', '--config.data.path=PATH'
  rows = (
    table_lib.Row(
      (label, size), {**where, 'd_model': width}, f'{variant},size={size}'
    )
    for size, width in widths.items()
    for label, variant, where in (_DENSE, *_METHODS)
  )
  sweeps = (
    table_lib.launch(
      f'{file}:size={size}', f'{name}_{size}', f'--sweep=language {data}'
    )
    for size in widths
  )
  return table_lib.Table(
    name, title, ('method', 'size'), {'data': name}, tuple(rows),
    _columns((1.0, 0.2, 0.1, 0.05), metric),
    table_lib.launch(f'{file}{_VARIANT}', name + '/{name}', data),
    tuple(sweeps), against=({'alpha': 1.0},), panel=1,
    # Each size has its own recipe.
    varies=('model.', 'optimizer.', 'train.', 'evaluation.'),
  )  # fmt: skip


def _small_text() -> table_lib.Table:
  """Returns the table of a small model on the text in the repository."""
  dense, static = (
    {'method': method, 'alpha': 1.0, 'density': density}
    for method, density in (('dense', 1.0), ('static', 0.2))
  )
  rows = [table_lib.Row(('dense', ''), dense, 'dense')]
  plain, powered = _METHODS[:2]
  for (name, variant, where), a, b in (
    (plain, 0.2, 0.4), (plain, 0.1, 0.2), (plain, 0.1, 1.0), (plain, 0.05, 0.1),
    (powered, 0.2, 0.4),
  ):  # fmt: skip
    densities = {'density': a, 'backward_density': b}
    rows.append(
      table_lib.Row(
        (name, f'{100 * a:g}% / {100 * b:g}%'),
        {**where, **densities, 'backward_ratio': round(b / a, 6)},
        f'{variant},density={a:g},backward_density={b:g}',
      )
    )
  rows.append(table_lib.Row(('static', '20%'), static, 'static,density=0.2'))
  file, seeds = 'text_transformer_xl.py', "'--config.seeds=(0,1,2)'"
  return table_lib.Table(
    'text',
    'A small Transformer-XL on the King James text',
    ('method', 'D / B'),
    {'data': 'kjv'},
    tuple(rows),
    (table_lib.Column('bits per character', {}, 'bits_per_character'),),
    table_lib.launch(file + ':{variant}', 'text/{name}', seeds),
    (table_lib.launch(file, 'text', f'--sweep=text {seeds}'),),
    extra=('density', 'inference_share', 'train_share'),
  )


def _photographs() -> table_lib.Table:
  """Returns the table of a few full-size steps in two dtypes."""
  file, data = 'photographs_resnet50.py', '--config.data.data_dir=DATA'
  return table_lib.Table(
    'photographs',
    'ResNet-50 on photographs: the loss of a few steps of every method',
    ('method',),
    {'data': 'imagenet', 'model': 'resnet50', 'num_steps': 4, 'share': None},
    tuple(
      table_lib.Row((variant,), where, variant)
      for _, variant, where in (_DENSE, *reversed(_METHODS))
    ),
    tuple(
      table_lib.Column(f'{dtype}: {label}', {'compute_dtype': dtype}, metric)
      for dtype in ('float32', 'bfloat16')
      for metric, label in (
        ('first_loss', 'steps 1-2'), ('last_loss', 'steps 3-4'),
        ('loss', 'afterwards'),
      )
    ),
    table_lib.launch(
      file + ':{variant}',
      'photographs/{variant}_{compute_dtype}',
      f'--config.model.compute_dtype={{compute_dtype}} {data}',
    ),
    (table_lib.launch(file, 'photographs', f'--sweep=photographs {data}'),),
    across=('model.compute_dtype',),
    has_plots=False,
  )  # fmt: skip


TABLES = (
  _imagenet(),
  _photographs(),
  _small_text(),
  _text(
    'enwik8', 'Transformer-XL on enwik8, bits per character',
    'bits_per_character', {'base': 512, 'large': 1024},
  ),
  _text(
    'wikitext103', 'Transformer-XL on WikiText-103, perplexity', 'perplexity',
    {'base': 410, 'large': 1024},
  ),
)  # fmt: skip
