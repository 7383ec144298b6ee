"""Magnitude pruning: dense training, then only the largest weights."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsity import counts as counts_lib
from sparsity import distributions
from sparsity import patterns
from sparsity import schedules
from sparsity import select as select_lib
from sparsity import state as state_lib
from sparsity import wrapper

# Maps a layer's parameters and gradients to scores; |score| is ranked.
Score = Callable[[jax.Array, jax.Array], jax.Array]
SCORES = {
  'magnitude': lambda params, gradients: params,
  'saliency': lambda params, gradients: params * gradients,
}


def magnitude(
  inner: optax.GradientTransformation,
  *,
  density: float,
  at: int,
  distribution: str | distributions.Distribution = 'uniform',
  scope: str = 'layer',
  dense: Sequence[str] = (),
  pattern: patterns.Pattern = patterns.UNSTRUCTURED,
  score: str | Score = 'magnitude',
  layout: str | None = None,
  select: select_lib.Predicate = select_lib.is_weight,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` with one-shot pruning after update `at`.

  Training is dense before; afterwards only the entries that were largest at
  that update are trained.

  Example:
    >>> import jax.numpy as jnp
    >>> tx = magnitude(optax.sgd(0.0), density=0.5, at=1)
    >>> params = {'linear': {'w': jnp.array([[1.0, -3.0], [2.0, 0.5]])}}
    >>> _, state = tx.update(params, tx.init(params), params)
    >>> state.sets.forward['linear']['w']
    Array([[False,  True],
           [ True, False]], dtype=bool)

  Args:
    density: fraction of the selected entries that is kept, in (0, 1].
    distribution: 'uniform', 'erdos_renyi' or 'erdos_renyi_kernel'.
    scope: 'layer' ranks each layer by itself, 'global' all layers together.
    dense: regular expressions of layers that stay dense, counted in `density`.
    pattern: entries kept together; see `sparsity.patterns`.
    layout: order of a layer's axes; see `sparsity.make_counts`.
    score: 'magnitude'; 'saliency', |parameter * gradient| of the parameters of
      the next step and the gradient of this update; or a function of the two.
      With Powerpropagation the gradient is that of theta, and the saliency is
      `lambda phi, g: powerprop.to_weights(phi, alpha) * g`.
    select: predicate for the parameters that may be sparse.

  Raises:
    ValueError: If `density` is outside (0, 1], `at` is less than 1, or an
      option is unknown.
  """
  if at < 1:
    raise ValueError(f'expected at >= 1, got {at}')
  return prune(
    inner,
    lambda count, k, size: k,
    lambda count: count == at,
    density=density,
    distribution=distribution,
    scope=scope,
    dense=dense,
    pattern=pattern,
    score=score,
    layout=layout,
    select=select,
  )


def gradual(
  inner: optax.GradientTransformation,
  *,
  density: float,
  start: int,
  end: int,
  prune_every: int,
  distribution: str | distributions.Distribution = 'uniform',
  scope: str = 'layer',
  dense: Sequence[str] = (),
  pattern: patterns.Pattern = patterns.UNSTRUCTURED,
  score: str | Score = 'magnitude',
  layout: str | None = None,
  select: select_lib.Predicate = select_lib.is_weight,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` with gradual pruning on a cubic schedule.

  After update t between `start` and `end`, a layer of n entries keeps
  k + (n - k) (1 - (t - start) / (end - start))^3, where k is its number at
  `density`. Each layer follows the schedule by itself, whatever the
  distribution, and so does the total. The last pruning is at `end`, exactly at
  `density`, whether or not `prune_every` divides the interval.

  A pruned entry keeps its value, and returns if others fall below it.

  Example:
    >>> import jax.numpy as jnp
    >>> tx = gradual(
    ...   optax.sgd(0.0), density=0.25, start=0, end=3, prune_every=2)
    >>> params = {'linear': {'w': jnp.arange(16.0).reshape(4, 4)}}
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...   _, state = tx.update(params, state, params)
    ...   print(state.sets.forward['linear']['w'].sum())
    16
    4
    4

  Arguments not listed are those of `magnitude`; `distribution` gives the
  densities at the end.

  Args:
    start: update until which training is dense.
    end: update of the last pruning.
    prune_every: updates between prunings, counted from `start`.

  Raises:
    ValueError: If `density` is outside (0, 1], not 0 <= start < end,
      `prune_every` is less than 1, or an option is unknown.

  Reference:
    Zhu and Gupta, 2017, "To prune, or not to prune: exploring the efficacy of
    pruning for model compression". https://arxiv.org/abs/1710.01878
  """
  is_due = schedules.every_to(end, prune_every, start=start)

  def num_kept(count, k, size):
    left = (end - jnp.clip(count, start, end)).astype(jnp.float32)
    more = jnp.round((size - k) * (left / (end - start)) ** 3)
    return k + more.astype(jnp.int32)

  return prune(
    inner,
    num_kept,
    is_due,
    density=density,
    distribution=distribution,
    scope=scope,
    dense=dense,
    pattern=pattern,
    score=score,
    layout=layout,
    select=select,
  )


def prune(
  inner, num_kept, is_due, *, density, pattern, score, grow=None, **options
):
  """Returns `inner` on the num_kept(count, final k, size) best when due.

  `grow` is that of `sparsity.Rule`.
  """
  if not callable(score):
    if score not in SCORES:
      raise ValueError(f'expected score out of {sorted(SCORES)}, got {score!r}')
    score = SCORES[score]

  def refresh(now: state_lib.Refresh, counts: counts_lib.Counts):
    sizes: Any = counts.sizes
    if counts.scope == 'global':
      sizes = sum(sizes.values())
    kept = patterns.topk_masks(
      pattern,
      jax.tree.map(score, now.weights, now.gradients),
      jax.tree.map(
        lambda k, size: num_kept(now.count, k, size), counts.forward, sizes
      ),
      counts.scope,
      layout=counts.layout,
    )
    return state_lib.ActiveSets(kept, kept)

  return wrapper.sparsify(
    inner,
    state_lib.Rule(
      lambda weights, counts, key: state_lib.everything(weights),
      refresh,
      grow,
      changes='numbers',
    ),
    counts_lib.make_counts(forward_density=density, pattern=pattern, **options),
    is_due=is_due,
  )
