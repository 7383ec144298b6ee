"""The claims of both papers and of later work, as checks of tables."""

from typing import NamedTuple

from experiments.paper import findings

POWERPROP, TOPKAST, LATER = 'Powerpropagation', 'Top-KAST', 'later work'


class Claim(NamedTuple):
  """A claim, and the check of a table for it."""

  name: str
  source: str
  text: str
  table: str
  check: findings.Check
  tuning: str = ''  # file of the tries behind the table


_LEVEL = 'weights kept [%]'
_ABOVE_1 = {'column': [f'alpha {a}' for a in (2, 3, 4, 5)]}
_LITERATURE = ('gradual', 'topkast', 'rigl', 'set', 'static')
_STEADY = '20%', '10%', '5%'
_CHOSEN = {'choice': 'all others'}
_ACCURACY, _TRAINED = {'column': 'accuracy'}, {'variant': 'plain'}
_SPARSE = {'method': ('Top-KAST', 'Top-KAST + Powerprop.')}
_LANGUAGE = ('20% / 40%', '10% / 20%', '5% / 10%')


def _pruning(name: str, text: str, level: str, by: float) -> Claim:
  check = findings.ahead(
    _ABOVE_1, {'column': 'alpha 1'}, by, where={_LEVEL: level}
  )
  text = f'MNIST, one-shot pruning: {text}'
  return Claim(name, POWERPROP, text, 'mnist_pruning', check, 'tune_pruning')


def _methods(data: str, title: str) -> list[Claim]:
  """Returns the claims about every method on one data set."""
  short, long, file = f'{data}_methods', f'{data}_methods_long', 'tune_methods'
  place = {**_TRAINED, 'column': '5%'}
  gradual = {'method': 'gradual', 'column': '2%'}
  return [
    Claim(
      f'{short}_{name}', LATER, f'{title}, LeNet-5: {text}', table, check, file
    )
    for name, text, table, check in (
      ('steady', 'no method fails, deviations under 1 point down to 5%', short,
       findings.steady(_STEADY)),
      *(
        (f'order{suffix}', 'gradual ≥ Top-KAST ≥ RigL ≥ SET ≥ static at 5% in '
         f'{num_steps} steps', table,
         findings.in_order('method', _LITERATURE, place))
        for suffix, num_steps, table in (
          ('', '1,000', short), ('_long', '10,000', long)
        )
      ),
      *((('above', 'above 98% at 5% in 10,000 steps', long,
          findings.at_least({'column': '5%'}, 0.98)),) * (data == 'mnist')),
    )
  ] + [
    Claim(
      f'{short}_powerprop', POWERPROP,
      f'{title}, LeNet-5: Powerpropagation improves gradual pruning at 2%',
      short,
      findings.ahead(
        {'variant': 'Powerprop.'}, {'variant': 'plain'}, where=gradual
      ), file,
    ),
    Claim(
      f'{short}_ham', LATER, f'{title}, LeNet-5: methods at 5% gain from HAM',
      short,
      findings.each(*(
        findings.ahead(
          {'variant': 'HAM'}, {'variant': 'plain'}, method=method, column='5%'
        )
        for method in ('static', 'rigl', 'topkast', 'acdc')
      )), file,
    ),
  ]  # fmt: skip


def _residual() -> list[Claim]:
  table, file = 'fashion_resnet', 'tune_residual'
  order = ('gradual', 'topkast', 'rigl', 'static')
  return [
    Claim(
      'resnet_steady', LATER,
      'WideResNet: no method fails, deviations under 1 point down to 5%',
      table, findings.steady(_STEADY), file,
    ),
    Claim(
      'resnet_order', LATER,
      'WideResNet: gradual ≥ Top-KAST ≥ RigL ≥ static at 10%', table,
      findings.in_order('method', order, {**_TRAINED, 'column': '10%'}), file,
    ),
    Claim(
      'resnet_powerprop', POWERPROP,
      'WideResNet: Powerpropagation improves gradual pruning and Top-KAST at '
      '10%',
      table, findings.each(*(
        findings.ahead(
          {'variant': 'Powerprop.'}, {'variant': 'plain'}, method=method,
          column='10%',
        )
        for method in ('gradual', 'topkast')
      )), file,
    ),
    Claim(
      'resnet_ham', LATER, 'WideResNet: AC/DC at 10% is better with HAM', table,
      findings.ahead(
        {'variant': 'HAM'}, {'variant': 'plain'}, method='acdc', column='10%'
      ), file,
    ),
  ]  # fmt: skip


def _choices() -> list[Claim]:
  chosen, accuracy = _CHOSEN, {'where': {'column': 'alpha 1'}}
  return [
    Claim(name, TOPKAST, text, 'fashion_topkast', check, 'tune_topkast')
    for name, text, check in (
      ('refresh',
       'Top-KAST: refreshing every 100 steps is no worse than every step',
       findings.no_worse(
         chosen, {'choice': 'refresh every', 'setting': '1'}, **accuracy)),
      ('explore', 'Top-KAST: exploration helps: B of 20% is better than B = A',
       findings.ahead(chosen, {'setting': '10% = A'}, **accuracy)),
      ('random', 'Top-KAST: exploration at random is worse than by magnitude',
       findings.ahead(chosen, {'setting': '20%, random'}, **accuracy)),
      ('penalty', 'Top-KAST: the exploration penalty helps',
       findings.ahead(
         chosen, {'choice': 'penalty', 'setting': '0'}, **accuracy)),
      ('stop', 'Top-KAST: refreshing in the first half only costs nothing',
       findings.no_worse({'setting': '50% of steps'}, chosen, **accuracy)),
      ('settle', 'Top-KAST: the sets settle: changes fall by more than half',
       findings.settles(chosen, 'left A, first tenth', 'left A, last tenth')),
    )
  ]  # fmt: skip


def _packing() -> list[Claim]:
  table = 'permuted_packing'
  shares = (
    Claim(
      f'owned_{name}', POWERPROP,
      f'ten tasks, {masks}: at equal accuracy the best alpha above 1 owns at '
      'most 80% of the weights of alpha 1',
      table, findings.owns_less(masks, 0.8), 'tune_packing',
    )
    for name, masks in (('layer', 'a mask per layer'), ('global', 'one mask'))
  )  # fmt: skip
  kept = {'strategy': 'efficient_packnet', 'column': 'tasks kept'}
  return [
    *shares,
    Claim(
      'tasks_fail', POWERPROP, 'ten tasks: no task fails', table,
      findings.none_below({'column': 'lowest task'}, 0.8), 'tune_packing',
    ),
    Claim(
      'strategies', POWERPROP, 'ten tasks: EfficientPackNet with alpha above 1 '
      'is more accurate than PackNet and EWC', 'permuted_mnist',
      findings.each(*(
        findings.ahead(
          {'strategy': 'efficient_packnet', 'alpha': ('2', '3', '4')},
          {'strategy': other, 'alpha': '1'}, where=_ACCURACY,
        )
        for other in ('packnet', 'ewc')
      )), 'tune_packing',
    ),
    Claim(
      'hundred', POWERPROP,
      'a hundred tasks: 90 or more keep 90% of the accuracy of a network each',
      'permuted_mnist_100', findings.at_least(kept, 90), 'tune_packing',
    ),
  ]  # fmt: skip


def _language() -> list[Claim]:
  bits, file = {'column': 'bits per character'}, 'tune_text'
  rivals = (
    ('parameters', 'a dense one of as many active parameters'),
    ('FLOPs', 'a dense one of as many FLOPs of training'),
  )
  return [
    *(
      Claim(
        f'equal_{rival}'.lower(), TOPKAST,
        f'language: a large sparse model beats {text}', 'text',
        findings.each(*(
          findings.ahead(
            {**_SPARSE, 'D / B': kept},
            {
              'method': f'dense, equal {rival}',
              'D / B': kept.partition(' ')[0],
            },
            where=bits,
          )
          for kept in _LANGUAGE
        )), file,
      )
      for rival, text in rivals
    ),
    Claim(
      'text_static', TOPKAST, 'language: Top-KAST beats a static random mask',
      'text', findings.each(*(
        findings.ahead(
          {'method': 'Top-KAST', 'D / B': kept},
          {'method': 'static', 'D / B': kept.partition(' ')[0]}, where=bits,
        )
        for kept in _LANGUAGE
      )), file,
    ),
    Claim(
      'text_powerprop', POWERPROP,
      'language: Powerpropagation improves Top-KAST', 'text', findings.each(*(
        findings.ahead(
          {'method': 'Top-KAST + Powerprop.'}, {'method': 'Top-KAST'},
          where={**bits, 'D / B': kept},
        )
        for kept in _LANGUAGE
      )), file,
    ),
  ]  # fmt: skip


def _cost() -> list[Claim]:
  return [
    Claim(
      f'{table}_{name}', TOPKAST,
      f'{network} on a CPU: at equal quality, compact storage takes {text} '
      'than dense training', table,
      findings.costs_less(f'step_{name}', 'method', 'dense'), file,
    )
    for table, network, file in (
      ('fashion_cost', 'perceptrons', 'tune_cost'),
      ('text_cost', 'a language model', 'tune_text'),
    )
    for name, text in (('seconds', 'less time'), ('bytes', 'less memory'))
  ]  # fmt: skip


CLAIMS = (
  _pruning('pruning_dense', 'as trained, the best alpha above 1 is within 0.2 '
           'points of alpha 1', 'as trained', -0.002),
  _pruning('pruning_11', 'with 11.3% of the weights the best alpha above 1 is '
           'at least 2 points ahead', '11.33', 0.02),
  _pruning('pruning_7', 'with 7.0% of the weights the best alpha above 1 is at '
           'least 15 points ahead', '6.98', 0.15),
  *_methods('mnist', 'MNIST'),
  *_methods('fashion', 'Fashion-MNIST'),
  *_residual(),
  *_choices(),
  *_packing(),
  *_language(),
  *_cost(),
)  # fmt: skip
# (source, claim, why it is not tested)
UNTESTED = (
  (POWERPROP,
   'CIFAR-10 and ImageNet: Powerpropagation improves sparse networks',
   'needs the data and, for ImageNet, accelerators; commands below'),
  (TOPKAST, 'ImageNet: always sparse at little loss of accuracy',
   'needs the data and accelerators; commands and published figures below'),
  (TOPKAST, 'enwik8 and WikiText-103: sparse Transformer-XL beats a dense one '
   'of its size', 'needs the data and accelerators; commands below'),
  (POWERPROP, 'Continual World: reinforcement learning of ten tasks',
   'no simulator in this project'),
)  # fmt: skip
