"""Top-KAST as an Optax transformation."""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
import optax

import sparsity
from sparsity import patterns
from sparsity import schedules
from sparsity import topk

EXPLORATIONS = ('topk', 'random')


def topkast(
  inner: optax.GradientTransformation,
  *,
  forward_density: float,
  backward_density: float,
  refresh_every: int = 1,
  stop_refresh_at: int | None = None,
  distribution: str = 'uniform',
  scope: str = 'layer',
  dense: Sequence[str] = (),
  exploration: str = 'topk',
  pattern: patterns.Pattern = patterns.UNSTRUCTURED,
  otherwise: str = 'error',
  warmup_entering: int | None = None,
  explore_scale: float | None = None,
  layout: str | None = None,
  seed: int = 0,
  select: sparsity.Predicate = sparsity.is_weight,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` restricted to Top-KAST's active sets.

  The network uses `topkast.weights(params, state)`: the parameters on A, zero
  elsewhere. The gradient with respect to these weights updates the parameters
  on B, a superset of A; entries outside B stay bitwise unchanged, whatever the
  inner optimizer does. Every `refresh_every` updates both sets are chosen anew
  from the parameters of the next step, and entries that leave or enter B get
  fresh optimizer state. It must be outermost, see `sparsity.sparsify`.

  Example:
    >>> import jax, jax.numpy as jnp, optax, topkast
    >>> tx = topkast.topkast(
    ...   optax.adam(1e-3), forward_density=0.25, backward_density=0.5,
    ...   refresh_every=100)
    >>> params = {'linear': {'w': jnp.arange(8.0).reshape(2, 4)}}
    >>> state = tx.init(params)
    >>> weights = topkast.weights(params, state)
    >>> weights['linear']['w']
    Array([[0., 0., 0., 0.],
           [0., 0., 6., 7.]], dtype=float32)
    >>> gradients = jax.grad(lambda w: w['linear']['w'].sum() ** 2)(weights)
    >>> updates, state = tx.update(gradients, state, params)
    >>> params = optax.apply_updates(params, updates)

  Arguments not listed are those of `sparsity.magnitude`.

  Args:
    forward_density: D, fraction of the selected entries in A, in (0, 1].
    backward_density: D + M, fraction in B; 1 for a dense backward pass.
    refresh_every: 1 in the paper.
    stop_refresh_at: last update that may change the sets; None: no end.
    exploration: choice of B without A: 'topk' as in the paper, or 'random', its
      ablation.
    pattern: entries kept together in A and in B, which has the units of A; see
      `sparsity.patterns`. With n_of_m, a B denser than n / m has the best n of
      each m entries and others.
    otherwise: as in `sparsity.make_counts`.
    warmup_entering, explore_scale: as in `sparsity.sparsify`.

  Raises:
    ValueError: If a density is outside (0, 1], the forward density exceeds
      the backward density, or an option is unknown; from `init`, if no
      parameter is selected, or a layer does not fit the pattern.

  Reference:
    Jayakumar et al., 2020, "Top-KAST: Top-K always sparse training".
    https://arxiv.org/abs/2106.03517
  """
  return sparsity.sparsify(
    inner,
    make_rule(exploration, pattern),
    sparsity.make_counts(
      forward_density=forward_density,
      backward_density=backward_density,
      distribution=distribution,
      scope=scope,
      dense=dense,
      pattern=pattern,
      otherwise=otherwise,
      layout=layout,
      select=select,
    ),
    is_due=schedules.every(refresh_every, stop=stop_refresh_at),
    warmup_entering=warmup_entering,
    explore_scale=explore_scale,
    seed=seed,
  )


# Compiled whole, so that jax_debug_infs does not see the infinity.
@functools.partial(jax.jit, static_argnames='scope')
def _random_superset(masks, k, key, scope):
  """Returns masks of k entries: those of `masks`, and others at random."""
  keys = topk.layer_keys(key, masks)
  scores = {
    path: jnp.where(mask, jnp.inf, topk.random_scores(keys[path], mask.shape))
    for path, mask in masks.items()
  }
  return topk.topk_masks(scores, k, scope)


def _choose_units(pattern, exploration, weights, counts, key):
  """Returns both sets in units of a pattern."""
  forward, backward = (
    patterns.topk_masks(pattern, weights, k, layout=counts.layout)
    for k in (counts.forward, counts.backward)
  )
  if exploration == 'random':
    more = jax.tree.map(lambda b, a: b - a, counts.backward, counts.forward)
    drawn = patterns.random_masks(
      pattern, key, weights, more, forward, counts.layout
    )
    backward = jax.tree.map(jnp.logical_or, forward, drawn)
  return sparsity.ActiveSets(forward, backward)


def make_rule(
  exploration: str, pattern: patterns.Pattern = patterns.UNSTRUCTURED
) -> sparsity.Rule:
  """Returns the rule that chooses both sets anew at every refresh.

  Within a layer |phi| and |theta| rank alike, because x -> x^alpha is monotone;
  either can be the weights.
  """
  if exploration not in EXPLORATIONS:
    raise ValueError(
      f'expected exploration out of {EXPLORATIONS}, got {exploration!r}'
    )

  def choose(weights, counts, key):
    ks, scope = (counts.forward, counts.backward), counts.scope
    if pattern is not patterns.UNSTRUCTURED:
      return _choose_units(pattern, exploration, weights, counts, key)
    if exploration == 'topk':
      return sparsity.ActiveSets(
        *topk.nested_topk_masks(weights, ks, scope, magnitude=True)
      )
    forward = topk.topk_masks(weights, ks[0], scope, magnitude=True)
    backward = _random_superset(forward, ks[1], key, scope)
    return sparsity.ActiveSets(forward, backward)

  return sparsity.Rule(
    choose, lambda now, counts: choose(now.weights, counts, now.key)
  )


weights = sparsity.forward_weights
active_sets = sparsity.active_sets
