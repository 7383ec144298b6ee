"""The sweeps behind the tables: overrides of a config, run by run.

  python launch.py --config=configs/mnist_methods.py --sweep=methods \
      --workdir=DIR [--jobs=2]

A sweep calls `add` with flat overrides; ':VARIANT' under 'config' chooses a
variant of the config's file. Each docstring names the configs it is for. A run
is trained for all seeds of its config; `tune_` sweeps take --config.seeds=(0,).
Densities, strengths and alphas without a source are this project's choice.
"""

from configs import fashion_resnet
from configs import methods as method_sections
from configs import mnist_methods

DENSITIES = (0.2, 0.1, 0.05)
ALPHAS = (1.0, 2.0, 3.0, 4.0, 5.0)
RATES = (0.1, 0.2, 0.3, 0.5, 0.8, 1.2)  # without momentum
TRIES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)  # with momentum
HAM_TRIES = ((5, 0.05), (5, 0.1), (10, 0.05), (10, 0.1), (10, 0.2), (20, 0.1))
METHODS = (
  'static', 'set', 'rigl', 'magnitude', 'gradual', 'acdc', 'snip', 'topkast',
)  # fmt: skip
HAM = 200  # its authors' strength; LeNet-5 at its rate bears less
HAM_METHODS = ('static', 'rigl', 'acdc', 'topkast')
KINDS = {'plain': {'alpha': 1}, 'powerprop': {'alpha': 2}, 'ham': {'ham': 1}}
# Rows of the small Transformer-XL, `narrow` a smaller dense model, with the
# middle one of the rates tried at 10%; and what they are multiplied with.
TEXT = {
  'narrow': 4e-3, 'static': 4e-3, 'rigl': 4e-3, 'gradual': 2e-3,
  'topkast': 4e-3, 'powerprop_topkast': 4e-3,
}  # fmt: skip
TEXT_FACTORS = {0.2: (0.5, 1), 0.1: (0.5, 1, 2), 0.05: (1, 2)}
# Steps of dense training with the FLOPs of Top-KAST at these densities, twice
# as many backward, in 1,500 steps: by experiments.flops.
EQUAL_FLOPS = {0.2: 522, 0.1: 344, 0.05: 256}
IMAGENET_DENSITIES = (0.2, 0.1, 0.05, 0.02, 0.01)
DISTRIBUTIONS = ('uniform', 'erdos_renyi_kernel')


def tune_pruning(add):
  """mnist_powerprop.py: learning rates of each alpha."""
  for alpha in ALPHAS:
    for rate in RATES:
      add({'powerprop.alphas': (alpha,), 'optimizer.learning_rate': rate})


def tune_methods(add):
  """mnist_methods.py: six tries of each method, 5%."""
  for name in ('dense', *METHODS):
    for alpha in (1, 2):
      variant = _small(name, 0.05, alpha=alpha)
      for rate in TRIES:
        add({**variant, 'optimizer.learning_rate': rate})
  for name in _names(mnist_methods.TUNED, 'ham'):
    for ham, rate in HAM_TRIES:
      own = {'optimizer.ham_a': ham, 'optimizer.learning_rate': rate}
      add({**_small(name, 0.05, ham=1), **own})


def tune_init(add):
  """mnist_methods.py: initializations of random sets at learning rates, 2%."""
  for name in ('static', 'set', 'rigl', 'snip'):
    for init in ('dense', 'layer', 'neuron'):
      for rate in (0.05, 0.1, 0.2):
        own = {'method.init': init, 'optimizer.learning_rate': rate}
        add({**_small(name, 0.02), **own})


def advice(add):
  """mnist_methods.py: distributions, and how entries enter Top-KAST's A, 5%."""
  for name in ('static', 'rigl', 'gradual', 'topkast'):
    for distribution in DISTRIBUTIONS:
      add(_small(name, 0.05, distribution=distribution))
  ways = {}, {'method.warmup_entering': 100}, {'method.explore_scale': 0.1}
  for own in ways:
    add({**_small('topkast', 0.05), 'method.refresh_every': 50, **own})


def densities(add):
  """mnist_topkast.py: forward and backward densities."""
  for forward, backward in ((0.1, 0.2), (0.05, 0.1), (0.02, 0.05)):
    add(
      {'method.forward_density': forward, 'method.backward_density': backward}
    )


def methods(add):
  """mnist_methods.py: every method, with Powerpropagation, some with HAM."""
  _methods(add)


def methods_long(add):
  """mnist_methods.py: the same at 5%, in 10,000 steps."""
  _methods(add, (0.05,), num_steps=10_000)


def _methods(
  add, densities=(*DENSITIES, 0.02), tuned=mnist_methods.TUNED, **keys
):
  for name, kind in tuned:
    for density in densities if name != 'dense' else (None,):
      add(_small(name, density, **KINDS[kind], **keys))


def residual(add):
  """fashion_resnet.py: methods at densities, with more."""
  _methods(add, DENSITIES, fashion_resnet.TUNED)


def tune_residual(add):
  """fashion_resnet.py: four learning rates of each method, 10%."""
  for name, kind in fashion_resnet.TUNED:
    for strength in (10, HAM) if kind == 'ham' else (None,):
      own = {'optimizer.ham_a': strength} if strength else {}
      for rate in (0.1, 0.2, 0.4, 0.8):
        variant = _small(name, 0.1, **KINDS[kind])
        add({**variant, **own, 'optimizer.learning_rate': rate})


def patterns(add):
  """fashion_topkast.py: patterns; text_transformer_xl.py:topkast too."""
  for density in (0.2, 0.1):
    for name in method_sections.PATTERNS:
      keys = f':density={density},backward_density={2 * density},pattern={name}'
      add({'config': keys})


def tune_patterns(add):
  """text_transformer_xl.py:num_steps=750: three rates of each pattern."""
  for density, middle in ((0.2, 2e-3), (0.1, 4e-3)):
    for name in method_sections.PATTERNS:
      for rate in (middle / 2, middle, 2 * middle):
        add(_variant('topkast', density, pattern=name, rate=rate))


def cost_text(add):
  """text_transformer_xl.py: dense and compact models; fewer refreshes."""
  for share in (0.1, 0.3, 1.0):
    add({'config': f':dense,params={share}'})
  for density in DENSITIES:
    variant = _variant('topkast', density)
    add({**variant, 'method.storage': 'compact', 'method.refresh_every': 10})


def cifar10_pruning(add):
  """cifar10_alexnet.py, cifar10_wrn.py: one-shot pruning of dense networks."""
  for alpha in ALPHAS:
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
      for name in ('gradual', 'powerprop_gradual', 'acdc'):
        add(_variant(name, density, distribution=distribution))
      add(_variant('acdc', density, distribution=distribution, ham=HAM))


def imagenet_sparse_to_sparse(add):
  """imagenet_resnet50.py: always sparse, uniform and Erdos-Renyi kernel."""
  for distribution in DISTRIBUTIONS:
    for density in IMAGENET_DENSITIES:
      for name in ('static', 'set', 'rigl', 'topkast', 'powerprop_topkast'):
        add(_variant(name, density, distribution=distribution))
      for name in ('static', 'rigl', 'topkast'):
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
    'static', 'set', 'rigl', 'gradual', 'powerprop_gradual', 'acdc',
    'topkast', 'powerprop_topkast',
  ):  # fmt: skip
    for density in DENSITIES:
      add(_variant(name, density))
  add({'config': f':dense,ham={HAM}'})
  for name in HAM_METHODS:
    for density in DENSITIES:
      add(_variant(name, density, ham=HAM))


def text(add):
  """text_transformer_xl.py: the table of the text that comes with this.

  Dense models with as many weights, or as many FLOPs of training, as the sparse
  ones are among them.
  """
  for variant in _text_rows():
    add(variant)
  for steps in EQUAL_FLOPS.values():
    add({'config': f':dense,num_steps={steps}'})
  add(_variant('topkast', 0.1, 1.0))


def tune_text(add):
  """text_transformer_xl.py: learning rates of each method, seven a method."""
  for density, factors in TEXT_FACTORS.items():
    for name, rate in TEXT.items():
      for factor in factors:
        own = {'optimizer.learning_rate': factor * rate}
        add({**_text_row(name, density), **own})
  for steps in (1_500, EQUAL_FLOPS[0.1]):
    for rate in (5e-4, 1e-3, 2e-3):
      own = {'optimizer.learning_rate': rate}
      add({'config': f':dense,num_steps={steps}', **own})


def _text_rows():
  yield {'config': ':dense'}
  for density in DENSITIES:
    for name in TEXT:
      yield _text_row(name, density)


def _text_row(name, density):
  if name == 'narrow':
    return {'config': f':dense,params={density}'}
  return _variant(name, density)


def strategies(add):
  """permuted_mnist.py, split_mnist.py, cifar_tasks.py: against forgetting."""
  for alpha in (1.0, 2.0, 3.0, 4.0):
    add({'config': f':strategy=efficient_packnet,alpha={alpha}'})
  for alpha in (1.0, 2.0):
    add({'config': f':strategy=packnet,alpha={alpha}'})
  for name in ('ewc', 'l2', 'fine_tuning', 'joint', 'alone'):
    add({'config': f':strategy={name}'})


def _names(tuned, kind):
  return [name for name, own in tuned if own == kind]


def _variant(name, density, backward=None, **keys):
  """Returns the overrides of a method, Top-KAST's backward density among them.

  Those of configs that choose it themselves are `_small`.
  """
  if name.endswith('topkast'):
    keys = {'backward_density': backward or 2 * density, **keys}
  return _small(name, density, **keys)


def _small(name, density, **keys):
  if name != 'dense':
    keys = {'density': density, **keys}
  words = [f'{key}={value}' for key, value in keys.items()]
  return {'config': ':' + ','.join([name, *words])}
