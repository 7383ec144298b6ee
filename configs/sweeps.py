"""The sweeps behind the tables: overrides of a config, run by run.

  python launch.py --config=configs/mnist_methods.py --sweep=methods \
      --workdir=DIR [--jobs=2]

A sweep calls `add` with flat overrides; ':VARIANT' under 'config' chooses a
variant of the config's file. Each docstring names the configs it is for. A run
is trained for all seeds of its config. Densities, strengths and alphas without
a source are this project's choice.
"""

from configs import methods as method_sections

DENSITIES = (0.2, 0.1, 0.05)
TRIES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)  # learning rates
HAM_TRIES = ((5, 0.05), (5, 0.1), (10, 0.05), (10, 0.1), (20, 0.03), (40, 0.02))
METHODS = (
  'static', 'set', 'rigl', 'magnitude', 'gradual', 'acdc', 'snip', 'topkast',
)  # fmt: skip
HAM = 200  # its authors' strength; LeNet-5 at its rate bears less
HAM_METHODS = ('static', 'rigl', 'acdc', 'topkast')
IMAGENET_DENSITIES = (0.2, 0.1, 0.05, 0.02, 0.01)
DISTRIBUTIONS = ('uniform', 'erdos_renyi_kernel')


def tune_pruning(add):
  """mnist_powerprop.py: learning rates of each alpha."""
  for alpha in (1.0, 2.0, 3.0, 4.0, 5.0):
    for rate in (0.1, 0.2, 0.3, 0.5, 0.8, 1.2):
      add({'powerprop.alphas': (alpha,), 'optimizer.learning_rate': rate})


def tune_methods(add):
  """mnist_methods.py: six tries of each method, 5%."""
  for name in ('dense', *METHODS):
    drawn = name in ('static', 'set', 'rigl', 'snip')
    for alpha in (1, 2):
      variant = f':{name},alpha={alpha}'
      if name != 'dense':
        variant += ',density=0.05'
      for rate in (0.05, 0.1, 0.2) if drawn else TRIES:
        for init in ('dense', 'neuron') if drawn else (None,):
          more = {'method.init': init} if drawn else {}
          add({'config': variant, 'optimizer.learning_rate': rate, **more})
  for name in ('static', 'rigl', 'gradual', 'topkast', 'acdc'):
    for ham, rate in HAM_TRIES:
      variant = f':{name},density=0.05,ham={ham}'
      add({'config': variant, 'optimizer.learning_rate': rate})


def densities(add):
  """mnist_topkast.py: forward and backward densities."""
  for forward, backward in ((0.1, 0.2), (0.05, 0.1), (0.02, 0.05)):
    add(
      {'method.forward_density': forward, 'method.backward_density': backward}
    )


def methods(add):
  """mnist_methods.py: every method, with Powerpropagation, some with HAM."""
  for key, names in (
    ('alpha=1', METHODS), ('alpha=2', METHODS), ('ham=10', HAM_METHODS),
  ):  # fmt: skip
    add({'config': f':dense,{key}'})
    for name in names:
      for density in (0.2, 0.1, 0.05, 0.02):
        add({'config': f':{name},density={density},{key}'})


def cifar10_pruning(add):
  """cifar10_alexnet.py, cifar10_wrn.py: one-shot pruning of dense networks."""
  for alpha in (1.0, 2.0, 3.0, 4.0, 5.0):
    add({'config': f':dense,alpha={alpha}'})


def cifar10_methods(add):
  """cifar10_alexnet.py, cifar10_wrn.py: methods at densities."""
  for keys, names in (
    ({'alpha': 1.0}, METHODS), ({'alpha': 2.0}, METHODS),
    ({'ham': HAM}, HAM_METHODS),
  ):  # fmt: skip
    for name in names:
      for density in (0.2, 0.1, 0.05, 0.02):
        add(_variant(name, density, **keys))
  add({'config': f':dense,ham={HAM}'})


def imagenet_dense_to_sparse(add):
  """imagenet_resnet50.py: gradual pruning and AC/DC, alone and with more."""
  add({'config': ':dense'})
  add({'config': f':dense,ham={HAM}'})
  for distribution in DISTRIBUTIONS:
    for density in IMAGENET_DENSITIES:
      for name in ('magnitude', 'powerprop_magnitude', 'acdc'):
        add(_variant(name, density, distribution=distribution))
      add(_variant('acdc', density, distribution=distribution, ham=HAM))


def imagenet_sparse_to_sparse(add):
  """imagenet_resnet50.py: always sparse, uniform and Erdos-Renyi kernel."""
  for distribution in DISTRIBUTIONS:
    for name in ('static', 'set', 'rigl', 'topkast', 'powerprop_topkast'):
      for density in IMAGENET_DENSITIES:
        add(_variant(name, density, distribution=distribution))
    for name in ('static', 'rigl', 'topkast'):
      for density in IMAGENET_DENSITIES:
        add(_variant(name, density, distribution=distribution, ham=HAM))


def imagenet_extended(add):
  """imagenet_resnet50.py: five times as long, Erdos-Renyi kernel."""
  for name in ('rigl', 'topkast', 'powerprop_topkast'):
    for density in IMAGENET_DENSITIES:
      add(_variant(name, density, distribution=DISTRIBUTIONS[1], length=5))


def photographs(add):
  """photographs_resnet50.py: every method, in float32 and in bfloat16."""
  for name in method_sections.LARGE:
    for dtype in ('float32', 'bfloat16'):
      add({'config': f':{name}', 'model.compute_dtype': dtype})


def language(add):
  """enwik8_transformer_xl.py, wikitext103_transformer_xl.py and
  text_transformer_xl.py: methods at densities.

  For a size: --config=configs/enwik8_transformer_xl.py:size=large.
  """
  add({'config': ':dense'})
  for name in (
    'static', 'set', 'rigl', 'magnitude', 'powerprop_magnitude', 'acdc',
    'topkast', 'powerprop_topkast',
  ):  # fmt: skip
    for density in DENSITIES:
      add(_variant(name, density))
  add({'config': f':dense,ham={HAM}'})
  for name in HAM_METHODS:
    for density in DENSITIES:
      add(_variant(name, density, ham=HAM))


def text(add):
  """text_transformer_xl.py: the table of the text that comes with this."""
  add({'config': ':dense'})
  for forward, backward in ((0.2, 0.4), (0.1, 0.2), (0.1, 1.0), (0.05, 0.1)):
    add(_variant('topkast', forward, backward))
  add(_variant('powerprop_topkast', 0.2))
  add(_variant('static', 0.2))
  add(_variant('acdc', 0.2))
  for name in ('topkast', 'acdc'):
    add(_variant(name, 0.2, ham=HAM))


def strategies(add):
  """permuted_mnist.py, split_mnist.py, cifar_tasks.py: against forgetting."""
  _strategies(add, '')


def hundred_tasks(add):
  """permuted_mnist.py: the same with a hundred tasks."""
  _strategies(add, 'hundred,')


def _strategies(add, variant):
  for alpha in (1.0, 2.0, 3.0, 4.0):
    name = 'efficient_packnet'
    add({'config': f':{variant}strategy={name},alpha={alpha}'})
  for alpha in (1.0, 2.0):
    add({'config': f':{variant}strategy=packnet,alpha={alpha}'})
  for name in ('ewc', 'l2', 'fine_tuning', 'joint', 'alone'):
    add({'config': f':{variant}strategy={name}'})


def _variant(name, density, backward=None, **keys):
  if name.endswith('topkast'):
    keys = {'backward_density': backward or 2 * density, **keys}
  words = [f'{key}={value}' for key, value in keys.items()]
  return {'config': ':' + ','.join([name, f'density={density}', *words])}
