"""Top-KAST's rule: A is the top D by magnitude, B the top D + M."""

import jax
import jax.numpy as jnp

import sparsity
from sparsity import topk

EXPLORATIONS = ('topk', 'random')


def choose(
  weights: dict[str, jax.Array],
  counts: sparsity.Counts,
  key: jax.Array,
  exploration: str = 'topk',
) -> sparsity.ActiveSets:
  """Returns the active sets of `weights`, by layer path.

  Within a layer |phi| and |theta| rank alike, because x -> x^alpha is monotone;
  either can be passed.
  """
  if exploration == 'topk':
    return sparsity.ActiveSets(
      *topk.nested_topk_masks(
        weights,
        (counts.forward, counts.backward),
        counts.scope,
        magnitude=True,
      )
    )
  forward = topk.topk_masks(
    weights, counts.forward, counts.scope, magnitude=True
  )
  # Entries of A rank first, so that B includes them, the others at random.
  keys = topk.layer_keys(key, forward)
  scores = {
    path: jnp.where(mask, jnp.inf, topk.random_scores(keys[path], mask.shape))
    for path, mask in forward.items()
  }
  backward = topk.topk_masks(scores, counts.backward, counts.scope)
  return sparsity.ActiveSets(forward, backward)


def make_rule(exploration: str) -> sparsity.Rule:
  """Returns the rule that chooses both sets anew at every refresh.

  Raises:
    ValueError: If `exploration` is unknown.
  """
  if exploration not in EXPLORATIONS:
    raise ValueError(
      f'expected exploration out of {EXPLORATIONS}, got {exploration!r}'
    )
  return sparsity.Rule(
    init=lambda weights, counts, key: choose(weights, counts, key, exploration),
    refresh=lambda now, counts: choose(
      now.weights, counts, now.key, exploration
    ),
  )
