"""Members of an experiment: networks that differ in alpha and seed."""

from collections.abc import Callable
from collections.abc import Sequence
import functools
from typing import Any

import jax
import numpy as np

from experiments import pruning
from experiments.common import distributed
from experiments.common import feed as feed_lib
from experiments.common import loop
from experiments.common import methods
from experiments.common import step as step_lib
from experiments.common import storage as storage_lib
import powerprop as powerprop_lib
import sparsity

HISTOGRAM = {'num_bins': 201, 'limit': 0.3}

# (seed, scores = None) -> Recipe
MakeRecipe = Callable[..., step_lib.Recipe]


def parameterization(
  *, alphas: tuple[float, ...], optimizer_in: str
) -> tuple[tuple[float, ...], str]:
  """Returns the section `config.powerprop`, checked.

  Raises:
    ValueError: If an alpha is less than 1 or there twice, or if `optimizer_in`
      is unknown.
  """
  if not alphas or len(set(alphas)) < len(alphas):
    raise ValueError(
      f'config.powerprop.alphas: expected different, got {alphas}'
    )
  if bad := [alpha for alpha in alphas if not 1 <= alpha < np.inf]:
    raise ValueError(f'config.powerprop.alphas: expected alpha >= 1, got {bad}')
  if optimizer_in not in methods.SPACES:
    raise ValueError(
      f'config.powerprop.optimizer_in: expected one of {methods.SPACES}, got '
      f'{optimizer_in!r}'
    )
  return alphas, optimizer_in


def make_recipe(
  init: Callable[[jax.Array], tuple[Any, Any]],
  objective: step_lib.Objective,
  method: methods.Method,
  optimizer: Any,
  *,
  alpha: float,
  optimizer_in: str,
  num_micro: int,
  skips: bool = False,
) -> MakeRecipe:
  """Returns the function from a seed, and scores, to how a member is trained.

  Args:
    init: from a key to theta and the network's state.
    objective: what is minimized.
    method: which entries are active.
    optimizer: what moves them.
    alpha: of Powerpropagation; 1 for none.
    optimizer_in: 'theta' or 'phi', see `methods.make_optimizer`.
    num_micro: parts of a batch.
    skips: steps whose loss or gradient is not finite.
  """

  def recipe(seed, scores=None):
    tx, storage = storage_lib.STORAGES[method.storage](
      methods.make_optimizer(
        method,
        optimizer,
        alpha=alpha,
        optimizer_in=optimizer_in,
        seed=seed,
        scores=scores,
      )
    )
    return step_lib.Recipe(
      init,
      objective,
      lambda phi: powerprop_lib.to_weights(phi, alpha),
      lambda theta: powerprop_lib.from_weights(theta, alpha),
      method.weights,
      method.density,
      method.masks,
      tx,
      num_micro,
      storage,
      skips,
    )

  return recipe


def init_state(make: MakeRecipe, seed, scores=None) -> step_lib.TrainState:
  """Returns a member's state before the first step, masked."""
  key = jax.random.fold_in(jax.random.key(seed), 0)
  return step_lib.init_state(make(seed, scores), key)


def check_model(make: MakeRecipe, state: Any, batch: Any) -> None:
  """Checks that each layer can be held as the method's storage says.

  Args:
    make: how a member is trained.
    state: shapes of its state.
    batch: shapes.

  Raises:
    ValueError: If a layer cannot; names it.
  """
  recipe = make(0)
  if not recipe.storage.is_compact:
    return
  weights = jax.eval_shape(
    functools.partial(step_lib.seen_weights, recipe),
    storage_lib.on_device(state),
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  gradients = functools.partial(step_lib.compute_gradients, recipe)
  try:
    sparsity.compact.check_model(
      gradients, weights, state.net_state, batch, key
    )
  except ValueError as error:
    raise ValueError(
      f"config.method.storage: 'compact' cannot serve this model: {error}"
    ) from error


def make_units(
  make: MakeRecipe,
  feed: feed_lib.Feed,
  *,
  alpha: float,
  groups: Sequence[tuple[int, ...]],
  levels: pruning.Levels,
  num_steps: int,
  num_score_batches: int,
  mesh: jax.sharding.Mesh,
  seed_of: Callable[[Any], Any] = lambda seed: seed,
) -> list[loop.Unit]:
  """Returns the units of one alpha; they share what is compiled.

  Args:
    make: how a member of a seed is trained.
    feed: on what.
    alpha: for the rows.
    groups: seeds, those of a group side by side.
    levels: at which trained networks are pruned.
    num_steps: of each.
    num_score_batches: batches that give the method its scores.
    mesh: devices that hold the state.
    seed_of: from what `make` and `groups` have for seeds, to the seed.
  """
  replicated = distributed.replicated(mesh)
  storage = feed_lib.of_members(make(0).storage)

  def see(state, seed):
    return step_lib.seen_weights(make(seed), state)

  def init(seed, batches):
    key = jax.random.fold_in(jax.random.key(seed_of(seed)), 0)
    scores = _scores(make(seed), key, batches) if num_score_batches else None
    return step_lib.init_state(make(seed, scores), key)

  def prune(weights, initial, kept):
    pruned, figures = pruning.at_level(weights, initial, kept)
    return pruned, figures

  # Of these every argument and result has members along its leading axis.
  init_all = jax.jit(jax.vmap(init), out_shardings=replicated)
  see_vmapped = jax.jit(jax.vmap(see), out_shardings=replicated)
  prune_all = jax.jit(jax.vmap(prune, (0, 0, None)), out_shardings=replicated)

  def see_all(state, seeds):
    return see_vmapped(state, np.array(seeds, np.uint32))

  def start(seeds):
    batches = None
    if num_score_batches:
      batches = feed.first_batches(seeds, num_score_batches)
    return init_all(np.array(seeds, np.uint32), batches)

  def report(seeds, state):
    """Returns the final rows of each member."""
    before = see_all(start(seeds), seeds)
    after = see_all(storage.unpack(state), seeds)
    test = jax.device_get(feed.evaluate(after, state.net_state, 'test'))
    rows = [
      [{'split': 'test', **_of_member(test, i)}] for i in range(len(seeds))
    ]
    for level, share in enumerate(levels.shares):
      kept = {path: numbers[level] for path, numbers in levels.kept.items()}
      pruned, figures = prune_all(after, before, kept)
      figures |= feed.evaluate(pruned, state.net_state, 'test')
      figures = jax.device_get(figures)
      for i, own in enumerate(rows):
        own.append(
          {'split': 'pruned', 'share': share, **_of_member(figures, i)}
        )
    for i, own in enumerate(rows):
      own[:] = [row for row in own if not _is_repeated(row, own)]
      for when, weights in (('before', before), ('after', after)):
        weights = jax.tree.map(lambda x, i=i: x[i], weights)
        bins = pruning.histogram(weights, **HISTOGRAM)
        own.append({'split': 'histogram', 'when': when, **bins})
    return rows

  def make_unit(seeds):
    return loop.Unit(
      members=tuple({'alpha': alpha, 'seed': seed} for seed in seeds),
      num_steps=num_steps,
      init=lambda _: storage.pack(start(seeds)),
      train=lambda state, *steps: feed.train(state, seeds, *steps),
      evaluate=lambda state: feed.evaluate(
        see_all(storage_lib.on_device(state), seeds),
        state.net_state,
        'validation',
      ),
      report=lambda state: report(seeds, state),
      like=lambda: storage_lib.shapes(
        storage.pack,
        jax.eval_shape(lambda: start(seeds)),
        lambda tree: distributed.with_sharding(tree, replicated),
      ),
    )

  return [make_unit(seeds) for seeds in groups]


def _scores(recipe: step_lib.Recipe, key, batches):
  """Returns the saliency of theta at the start, over batches [N, B, ...]."""
  weights, net_state = recipe.init(key)

  def loss(weights, batch):
    return recipe.objective(weights, net_state, key, batch, True)[0]

  num = len(jax.tree.leaves(batches)[0])
  parts = [jax.tree.map(lambda x, i=i: x[i], batches) for i in range(num)]
  return sparsity.saliency(loss, weights, parts)


def _of_member(values, i: int) -> dict[str, float]:
  return {name: float(value[i]) for name, value in values.items()}


def _is_repeated(row, rows) -> bool:
  """Whether a level keeps what one below it does: there are no more weights."""
  return row['split'] == 'pruned' and any(
    other['split'] == 'pruned'
    and other['share'] < row['share']
    and other['density'] >= row['density']
    for other in rows
  )
