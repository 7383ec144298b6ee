"""Sets that never change: at random, or SNIP's most sensitive weights."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsity import counts as counts_lib
from sparsity import distributions
from sparsity import patterns
from sparsity import select as select_lib
from sparsity import state as state_lib
from sparsity import topk
from sparsity import wrapper


def static(
  inner: optax.GradientTransformation,
  *,
  density: float,
  distribution: str = 'uniform',
  scope: str = 'layer',
  dense: Sequence[str] = (),
  layout: str | None = None,
  seed: int = 0,
  select: select_lib.Predicate = select_lib.is_weight,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` on a random set of entries that never changes.

  The baseline for dynamic methods.

  Example:
    >>> import jax.numpy as jnp
    >>> tx = static(optax.sgd(0.1), density=0.25)
    >>> state = tx.init({'linear': {'w': jnp.ones((4, 4))}})
    >>> int(state.sets.forward['linear']['w'].sum())
    4

  Arguments not listed are those of `sparsity.magnitude`.

  Raises:
    ValueError: If `density` is outside (0, 1] or an option is unknown.
  """

  def init(weights, counts, key):
    keys = topk.layer_keys(key, weights)
    scores = {
      path: topk.random_scores(keys[path], weight.shape)
      for path, weight in weights.items()
    }
    return state_lib.same_sets(
      topk.topk_masks(scores, counts.forward, counts.scope)
    )

  return _fixed(
    inner,
    init,
    counts_lib.make_counts(
      forward_density=density,
      distribution=distribution,
      scope=scope,
      dense=dense,
      layout=layout,
      select=select,
    ),
    seed=seed,
  )


def saliency(
  loss: Callable[[Any, Any], jax.Array], weights: Any, batches: Iterable[Any]
) -> Any:
  """Returns |weight * gradient|, with the gradient averaged over batches.

  `loss(weights, batch)` is a mean over a batch; batches have equal sizes. Its
  weights are float32 if those given are of fewer bits.

  This is |dL / dc| at c = 1 where each weight has its own factor c. The paper
  normalizes it to sum to one, which does not change the ranking.

  With Powerpropagation pass theta; the saliency of phi is alpha times as large
  and ranks alike.

  Example:
    >>> loss = lambda weights, x: jnp.sum(weights * x)
    >>> weights = jnp.array([1.0, -2.0])
    >>> saliency(loss, weights, [jnp.ones(2), jnp.array([-3.0, 1.0])])
    Array([1., 2.], dtype=float32)

  Shapes:
    weights: any; the result has the same shapes, in float32.

  Raises:
    ValueError: If there is no batch.

  Reference:
    Lee et al., 2019, "SNIP: Single-shot network pruning based on connection
    sensitivity". https://arxiv.org/abs/1810.02340
  """

  @jax.jit
  def add(total, weights, batch):
    gradients = jax.grad(loss)(weights, batch)
    return jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, gradients)

  weights = jax.tree.map(
    lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), weights
  )
  total = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), weights)
  num_batches = 0
  for batch in batches:
    total = add(total, weights, batch)
    num_batches += 1
  if not num_batches:
    raise ValueError('expected at least one batch, got none')
  return jax.tree.map(
    lambda x, g: jnp.abs(x.astype(g.dtype) * g / num_batches), weights, total
  )


def snip(
  inner: optax.GradientTransformation,
  *,
  scores: Any,
  density: float,
  distribution: str | distributions.Distribution = 'uniform',
  scope: str = 'global',
  dense: Sequence[str] = (),
  pattern: patterns.Pattern = patterns.UNSTRUCTURED,
  layout: str | None = None,
  select: select_lib.Predicate = select_lib.is_weight,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` on the entries of largest |score|, fixed for training.

  Example:
    >>> params = {'linear': {'w': jnp.array([[1.0, -3.0], [2.0, 0.5]])}}
    >>> loss = lambda weights, batch: jnp.sum(weights['linear']['w'] * batch)
    >>> scores = saliency(loss, params, [jnp.array([[4.0, 1.0], [1.0, 1.0]])])
    >>> tx = snip(optax.sgd(0.1), scores=scores, density=0.5)
    >>> tx.init(params).sets.forward['linear']['w']
    Array([[ True,  True],
           [False, False]], dtype=bool)

  Arguments not listed are those of `sparsity.magnitude`.

  Args:
    scores: a tree that includes the sparse parameters, from `saliency` or any
      other source; read by `init` only.
    scope: 'global' ranks all layers together, as in the paper, 'layer' each
      layer by itself; `dense` and `pattern` require 'layer'.

  Raises:
    ValueError: If `density` is outside (0, 1] or an option is unknown; from
      `init`, if a sparse parameter has no score of its shape.
  """

  def init(scores, weights, counts, key):
    del key
    own = select_lib.pick(scores, weights)
    for path, x in weights.items():
      if path not in own or jnp.shape(own[path]) != x.shape:
        found = jnp.shape(own[path]) if path in own else 'none'
        raise ValueError(
          f'expected scores of shape {x.shape} for {path}, got {found}'
        )
    own = {path: own[path] for path in weights}
    return state_lib.same_sets(
      patterns.topk_masks(
        pattern, own, counts.forward, scope, layout=counts.layout
      )
    )

  return _fixed(
    inner,
    jax.tree_util.Partial(init, scores),  # arrays that may be sharded
    counts_lib.make_counts(
      forward_density=density,
      distribution=distribution,
      scope=scope,
      dense=dense,
      pattern=pattern,
      layout=layout,
      select=select,
    ),
  )


def _fixed(inner, init, make_counts, seed=0):
  """Returns `inner` on the masks of init(weights, counts, key), for ever."""
  return wrapper.sparsify(
    inner,
    state_lib.Rule(
      init,
      lambda now, _: now.sets,
      changes='nothing',
    ),
    make_counts,
    is_due=lambda count: jnp.zeros_like(count, bool),
    seed=seed,
  )
