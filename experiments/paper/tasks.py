"""The tables of continual learning."""

from experiments.paper import table as table_lib

Row, Column, Table = table_lib.Row, table_lib.Column, table_lib.Table
GAMMAS = (0.95, 0.97, 0.98, 0.99, 0.995)
ACCURACY, OWNED = 'accuracy', 'weights owned'  # columns
# Alphas of each strategy; Powerpropagation serves those that prune.
_STRATEGIES = {
  'alone': (1.0,), 'efficient_packnet': (1.0, 2.0, 3.0, 4.0), 'ewc': (1.0,),
  'fine_tuning': (1.0,), 'joint': (1.0,), 'l2': (1.0,), 'packnet': (1.0, 2.0),
}  # fmt: skip
BEST = {
  'alone': (1.0,), 'efficient_packnet': (1.0, 2.0), 'ewc': (1.0,),
  'packnet': (1.0, 2.0),
}  # fmt: skip
_MEASURES = {
  ACCURACY: 'average_accuracy', 'lowest task': 'lowest_accuracy',
  'when learned': 'learning_accuracy', 'forgetting': 'forgetting',
  'forward transfer': 'forward_transfer', 'below alone': 'intransigence',
  OWNED: 'owned', 'tasks kept': 'kept',
}  # fmt: skip
_RATE = ('optimizer.learning_rate',)


def _columns(*names: str) -> tuple[Column, ...]:
  return tuple(Column(name, {}, _MEASURES[name]) for name in names)


def strategies(
  name: str, title: str, where, config: str, sweep: str = 'strategies',
  options: tuple[str, ...] = (), alphas=_STRATEGIES, **facts,
) -> Table:  # fmt: skip
  """Returns the table of strategies; `facts` are those of EfficientPackNet."""
  rows = []
  for strategy, own_alphas in alphas.items():
    own = facts if strategy == 'efficient_packnet' else {}
    for alpha in own_alphas:
      labels = strategy, f'{alpha:g}'
      rows.append(Row(labels, {'strategy': strategy, 'alpha': alpha, **own}))
  return Table(
    name, title, ('strategy', 'alpha'), where, tuple(rows),
    _columns(*_MEASURES),
    (table_lib.launch(config, name, f'--sweep={sweep}', *options),),
    against=({'alpha': 1.0}, {'strategy': 'packnet', 'alpha': 1.0}),
    varies=_RATE, plots='tasks',
  )  # fmt: skip


def packing(name: str, where, config: str) -> Table:
  """Returns accuracy and weights owned of EfficientPackNet, by gamma."""
  scopes = {
    'a mask per layer': ('layer', (1, 2, 3)), 'one mask': ('global', (1, 2)),
  }  # fmt: skip
  rows = (
    Row(
      (label, f'alpha {alpha}', f'{gamma:g}'),
      {'scope': scope, 'alpha': float(alpha), 'gamma': gamma},
    )
    for label, (scope, alphas) in scopes.items()
    for alpha in alphas
    for gamma in GAMMAS
  )
  return Table(
    name, 'EfficientPackNet on permuted MNIST: accuracy against weights owned',
    ('masks', 'alpha', 'gamma'), {**where, 'strategy': 'efficient_packnet'},
    tuple(rows), _columns(ACCURACY, OWNED, 'lowest task'),
    (table_lib.launch(config, name, '--sweep=packing'),),
    against=({'alpha': 1.0}, {'scope': 'layer'}), varies=_RATE, panel=0,
    plots='owned',
  )  # fmt: skip
