"""The exploration penalty: stronger decay of entries in B but not in A."""

import jax.numpy as jnp
import optax

import sparsity
from sparsity import select

KINDS = ('l2', 'l1')


def exploration_penalty(
  coefficient: float, kind: str = 'l2'
) -> optax.GradientTransformation:
  """Returns a transformation that adds the gradient of Top-KAST's penalty.

  Its strength is 1 on A, 1/D on B without A, and 0 elsewhere, where D is the
  density of A in the layer. Explored entries decay faster, so only entries that
  grow against the penalty enter A. Selected layers that are dense are all A;
  layers not selected have no penalty.

  Use it inside the optimizer given to `topkast.topkast`, whose sets it
  reads. Before the optimizer's scaling it is part of the loss, and subject to
  momentum; after it, it is decoupled like AdamW's decay. Put it after Adam's,
  which would let a small penalty move entries by the learning rate. Inside
  `powerprop.powerprop` it acts on theta, as in the paper; outside, on phi.

  Example:
    >>> import optax
    >>> import topkast
    >>> tx = topkast.topkast(
    ...   optax.chain(topkast.exploration_penalty(1e-4), optax.sgd(0.1)),
    ...   forward_density=0.1, backward_density=0.2)

  Args:
    kind: 'l2' for coefficient / 2 * strength * w^2, 'l1' for
      coefficient * strength * |w|.

  Raises:
    ValueError: If `kind` is unknown or `coefficient` negative; from `update`,
      if the sets or the parameters are missing.

  Reference:
    Jayakumar et al., 2020, "Top-KAST: Top-K always sparse training".
    https://arxiv.org/abs/2106.03517
    The formula has |w|, the text says L2; `kind` offers both.
  """
  if kind not in KINDS:
    raise ValueError(f'expected kind out of {KINDS}, got {kind!r}')
  if not coefficient >= 0:
    raise ValueError(f'expected coefficient >= 0, got {coefficient}')

  def update(updates, state, params=None):
    restriction = sparsity.restriction()
    if restriction is None:
      raise ValueError(
        'expected the active sets of a method around this link, got none: put '
        'exploration_penalty into the optimizer that topkast.topkast wraps'
      )
    active_sets, forward_densities = restriction
    if params is None:
      raise ValueError('expected parameters, got None')
    weights, forward, backward = (
      select.pick(tree, forward_densities) for tree in (params, *active_sets)
    )
    gradients = select.pick(updates, weights)

    def add(path):
      weight, density = weights[path], forward_densities[path]
      slope = weight if kind == 'l2' else jnp.sign(weight)
      strength = jnp.where(forward[path], 1.0, 1.0 / density)
      strength = jnp.where(backward[path], coefficient * strength, 0.0)
      gradient = gradients[path]
      return gradient + (strength * slope).astype(gradient.dtype)

    return select.put(updates, {path: add(path) for path in gradients}), state

  return optax.GradientTransformation(optax.init_empty_state, update)
