"""The exploration penalty: what has to earn its place in A."""

import jax.numpy as jnp
import optax

from sparsity import select

KINDS = ('l2', 'l1')


def exploration_penalty(
  coefficient: float, kind: str = 'l2'
) -> optax.GradientTransformationExtraArgs:
  """Returns a link that adds the gradient of Top-KAST's penalty.

  The strength is 1 on A, 1/D on B without A, and 0 elsewhere, D being the
  density of A in the layer: an entry that is only explored decays faster, so it
  must grow against that to enter A. Layers that are not selected are left
  alone; selected ones that are dense are all A.

  The link goes into the inner chain of `topkast.topkast`, which hands it the
  sets. Before an optimizer's own scaling it is a penalty of the loss, and goes
  through momentum; after it, it is decoupled like AdamW's decay. Inside
  `powerprop.powerprop` it acts on theta, the weights of the network, which is
  the paper's; outside, on phi.

  Example:
    >>> import optax
    >>> import topkast
    >>> tx = topkast.topkast(
    ...   optax.chain(topkast.exploration_penalty(1e-4), optax.sgd(0.1)),
    ...   forward_density=0.1, backward_density=0.2)

  Args:
    coefficient: weight of the penalty, at least 0.
    kind: 'l2' for coefficient / 2 * strength * w^2, 'l1' for
      coefficient * strength * |w|.

  Raises:
    ValueError: If `kind` is unknown or `coefficient` negative; from `update`,
      if no sets were handed over or no parameters given.

  Reference:
    Jayakumar et al., 2020, "Top-KAST: Top-K always sparse training".
    https://arxiv.org/abs/2106.03517
    Their formula has |w|, their text says L2: both are here.
  """
  if kind not in KINDS:
    raise ValueError(f'expected kind out of {KINDS}, got {kind!r}')
  if not coefficient >= 0:
    raise ValueError(f'expected coefficient >= 0, got {coefficient}')

  def update(
    updates,
    state,
    params=None,
    *,
    active_sets=None,
    forward_densities=None,
    **extra,
  ):
    del extra
    if active_sets is None or forward_densities is None:
      raise ValueError(
        'expected the active sets as an extra argument, got none: put '
        'exploration_penalty into the optimizer that topkast.topkast wraps'
      )
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

  return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
