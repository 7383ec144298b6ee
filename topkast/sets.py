"""The rule of Top-KAST: A is the top D of the magnitudes, B the top D + M."""

import jax
import jax.numpy as jnp

import sparsity
from sparsity import masks

EXPLORATIONS = ('topk', 'random')


def choose(
  weights: dict[str, jax.Array],
  counts: sparsity.Counts,
  key: jax.Array,
  exploration: str = 'topk',
) -> sparsity.ActiveSets:
  """Returns the sets of `weights`, by layer path.

  Ranking |phi| and ranking |theta| select the same entries within a layer, for
  x -> x^alpha is monotone, so raw and reparameterized weights serve alike.

  Args:
    weights: the sparse layers, by path.
    counts: how many entries of them are in A and in B.
    key: of the random choice; unused where `exploration` is 'topk'.
    exploration: how B without A is chosen: 'topk' takes the largest that are
      left, 'random' any.

  Reference:
    Jayakumar et al., 2020, "Top-KAST: Top-K always sparse training".
    https://arxiv.org/abs/2106.03517
  """
  if exploration == 'topk':
    return sparsity.ActiveSets(
      *masks.nested_topk_masks(
        weights,
        (counts.forward, counts.backward),
        counts.scope,
        magnitude=True,
      )
    )
  forward = masks.topk_masks(
    weights, counts.forward, counts.scope, magnitude=True
  )
  # Entries of A rank first, the others at random: the top of B holds all of A.
  keys = sparsity.layer_keys(key, forward)
  lottery = {
    path: jnp.where(mask, jnp.inf, masks.random_scores(keys[path], mask.shape))
    for path, mask in forward.items()
  }
  backward = masks.topk_masks(lottery, counts.backward, counts.scope)
  return sparsity.ActiveSets(forward, backward)


def check_exploration(exploration: str) -> None:
  """Raises unless `exploration` is one of `EXPLORATIONS`.

  Raises:
    ValueError: If so.
  """
  if exploration not in EXPLORATIONS:
    raise ValueError(
      f'expected exploration out of {EXPLORATIONS}, got {exploration!r}'
    )


def make_rule(exploration: str) -> sparsity.Rule:
  """Returns the rule: every refresh chooses anew from the next parameters.

  Raises:
    ValueError: If `exploration` is unknown.
  """
  check_exploration(exploration)
  return sparsity.Rule(
    init=lambda weights, counts, key: choose(weights, counts, key, exploration),
    refresh=lambda now, counts: choose(
      now.weights, counts, now.key, exploration
    ),
  )
