"""Powerpropagation as Optax transformations.

Differentiate through `to_weights`, and any optimizer gets dL/dphi and phi. Or
take the gradient with respect to theta and wrap the optimizer in `powerprop`:
it gets dL/dtheta and theta, and its update is mapped to phi. With SGD both are
the same. With Adam the first form loses the effect of the method, that large
weights learn faster.
"""

import optax

from powerprop import reparam
from sparsity import select as select_lib


def powerprop(
  inner: optax.GradientTransformation,
  alpha: reparam.Alpha,
  select: select_lib.Predicate = select_lib.is_weight,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` acting on theta, for parameters phi.

  `inner` is initialized with theta and gets dL/dtheta and theta, so that its
  weight decay and penalties act on theta. Its updates are multiplied by
  alpha |phi|^(alpha - 1). To decay phi itself, chain a decay after it.
  `alpha` and `select` are as in `to_weights`.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> params = {'linear': {'w': jnp.array([[1.0, 2.0]])}}
    >>> tx = powerprop(optax.sgd(0.1), alpha=2)
    >>> state = tx.init(params)
    >>> loss = lambda weights: jnp.sum(weights['linear']['w'])
    >>> grads = jax.grad(loss)(reparam.to_weights(params, alpha=2))
    >>> updates, state = tx.update(grads, state, params)
    >>> updates['linear']['w']
    Array([[-0.2, -0.4]], dtype=float32)

  Raises:
    ValueError: As in `to_weights`, for errors in the parameters from `init` and
      `update`; if `update` is called without `params`.

  Reference:
    Schwarz et al., 2021, "Powerpropagation: A sparsity inducing weight
    reparameterisation". https://arxiv.org/abs/2110.00296
  """
  reparam.check_alpha(alpha)
  inner = optax.with_extra_args_support(inner)

  def init(params):
    return inner.init(reparam.to_weights(params, alpha, select))

  def update(updates, state, params=None, **extra_args):
    check_params(params)
    weights = reparam.to_weights(params, alpha, select)
    updates, state = inner.update(updates, state, weights, **extra_args)
    updates = reparam.scale_by_derivative(updates, params, alpha, select)
    return updates, state

  return optax.GradientTransformationExtraArgs(init, update)


def scale_by_powerprop(
  alpha: reparam.Alpha,
  select: select_lib.Predicate = select_lib.is_weight,
) -> optax.GradientTransformation:
  """Returns the transformation to multiply updates by alpha |phi|^(alpha - 1).

  For custom chains. The other transformations get phi, not theta: a weight
  decay before this one is scaled, one after it is not.

  Example:
    >>> import jax.numpy as jnp
    >>> tx = optax.chain(optax.sgd(0.5), scale_by_powerprop(alpha=2))
    >>> params = {'linear': {'w': jnp.array([[1.0, 3.0]])}}
    >>> grads = {'linear': {'w': jnp.array([[1.0, 1.0]])}}
    >>> updates, _ = tx.update(grads, tx.init(params), params)
    >>> updates['linear']['w']
    Array([[-1., -3.]], dtype=float32)

  Raises:
    ValueError: As in `powerprop`.
  """
  reparam.check_alpha(alpha)

  def update(updates, state, params=None):
    check_params(params)
    updates = reparam.scale_by_derivative(updates, params, alpha, select)
    return updates, state

  return optax.GradientTransformation(optax.init_empty_state, update)


def check_params(params: optax.Params | None) -> None:
  """Raises ValueError if an update is called without parameters."""
  if params is None:
    raise ValueError(
      'expected params, got None: call update(grads, state, params)'
    )
