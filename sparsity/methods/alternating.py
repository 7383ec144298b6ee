"""AC/DC: phases of dense and of sparse training in turn."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax

from sparsity import distributions
from sparsity import patterns
from sparsity import schedules
from sparsity import select as select_lib
from sparsity.methods import magnitude
from sparsity.methods import rewiring


def acdc(
  inner: optax.GradientTransformation,
  *,
  density: float,
  start: int,
  end: int,
  phase_steps: int,
  grow_at: float = 0.0,
  distribution: str | distributions.Distribution = 'uniform',
  scope: str = 'layer',
  dense: Sequence[str] = (),
  pattern: patterns.Pattern = patterns.UNSTRUCTURED,
  layout: str | None = None,
  select: select_lib.Predicate = select_lib.is_weight,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` on all entries and on the largest ones in turn.

  Training is dense until update `start`; then sparse and dense phases of
  `phase_steps` alternate, and from `end` on it is sparse. The last dense phase
  lasts until `end`, up to three times as long as the others. Each sparse phase
  begins with the entries that are largest then. Weights that were left out
  start the next dense phase at zero, with fresh optimizer state.

  Differs from the paper: weights that stayed keep their optimizer state, where
  the paper resets all momentum; and layers are ranked one by one unless
  `scope='global'`, as in most of its experiments. With Powerpropagation a
  weight at zero stays there: give `grow_at`, the magnitude at which weights
  return, with the sign that they had.

  Example:
    >>> tx = acdc(
    ...   optax.sgd(0.0), density=0.25, start=1, end=6, phase_steps=2)
    >>> params = {'linear': {'w': jnp.arange(1.0, 17.0).reshape(4, 4)}}
    >>> state = tx.init(params)
    >>> for _ in range(7):
    ...   updates, state = tx.update(params, state, params)
    ...   params = optax.apply_updates(params, updates)
    ...   print(state.sets.forward['linear']['w'].sum())
    4
    4
    16
    16
    16
    4
    4

  Arguments not listed are those of `sparsity.magnitude`.

  Args:
    start: update after which the first sparse phase begins.
    end: update after which the sets stay.
    phase_steps: updates of a phase.
    grow_at: initial |parameter| of entries that return.

  Raises:
    ValueError: If `density` is outside (0, 1], `start` or `phase_steps` is less
      than 1, fewer than two phases fit between `start` and `end`, or an option
      is unknown.

  Reference:
    Peste et al., 2021, "AC/DC: alternating compressed/decompressed training of
    deep neural networks". https://arxiv.org/abs/2106.12379
  """
  is_dense = schedules.alternating(end, phase_steps, start=start)
  return magnitude.prune(
    inner,
    lambda count, k, size: jnp.where(is_dense(count), size, k),
    lambda count: is_dense(count) != is_dense(count - 1),
    grow=rewiring.make_grow(grow_at, lambda params, gradients: params < 0),
    density=density,
    distribution=distribution,
    scope=scope,
    dense=dense,
    pattern=pattern,
    score='magnitude',
    layout=layout,
    select=select,
  )
