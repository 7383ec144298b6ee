"""Haiku modules that store phi and compute with theta.

For programs that cannot pass weights explicitly. The parameters have the names
and shapes of the plain modules but hold phi, and their gradient is dL/dphi. phi
is initialized so that theta has the initial values of the plain modules.
"""

from collections.abc import Iterator
import contextlib

import haiku as hk
import jax

from powerprop import reparam
from sparsity import select as select_lib


@contextlib.contextmanager
def parameterize(
  alpha: reparam.Alpha,
  select: select_lib.Predicate = select_lib.is_weight,
) -> Iterator[None]:
  """Context in which Haiku modules store selected parameters as phi.

  Wrap the call of a network, where Haiku creates parameters:

  Example:
    >>> import jax.numpy as jnp
    >>> def forward(x):
    ...   net = hk.nets.MLP([300, 100, 10])
    ...   with parameterize(alpha=2):
    ...     return net(x)
    >>> net = hk.transform(forward)
    >>> images = jnp.ones((1, 784))
    >>> params = jax.eval_shape(net.init, jax.random.key(0), images)
    >>> params['mlp/~/linear_0']['w'].shape
    (784, 300)

  Outputs and gradients equal `net.apply(to_weights(params, alpha, select), x)`
  with `params = from_weights(net.init(...), alpha, select)`.

  Haiku runs outer getters first: an inner getter, such as a mask, gets theta,
  an outer one phi. Nested contexts, and contexts around the modules of this
  file, multiply their powers.

  Raises:
    ValueError: If an alpha is less than 1, not finite or traced; on exit, if no
      parameter was selected, or a key of `alpha` names none that was.
  """
  reparam.check_alpha(alpha)
  paths = []

  def path_alpha(context: hk.GetterContext) -> float:
    module, name = context.module_name, context.name
    value = jax.ShapeDtypeStruct(
      tuple(context.original_shape), context.original_dtype
    )
    if not select(module, name, value):
      return 1.0
    paths.append(context.full_name)
    return reparam.alpha_of(alpha, module, name)

  def creator(next_creator, shape, dtype, init, context):
    theta = next_creator(shape, dtype, init)
    return reparam.from_weights(theta, path_alpha(context))

  def getter(next_getter, phi, context):
    return next_getter(reparam.to_weights(phi, path_alpha(context)))

  with hk.custom_creator(creator), hk.custom_getter(getter):
    yield
  if not paths:
    raise ValueError(
      'expected selected parameters within parameterize, got none: put it '
      'around the call of a network, not its construction'
    )
  reparam.check_matched(alpha, list(dict.fromkeys(paths)))


class _Parameterized:
  """Mixin that calls the module within `parameterize(alpha)`."""

  def __init__(self, *args, alpha: float, **kwargs):
    reparam.check_alpha(alpha)
    super().__init__(*args, **kwargs)
    self.alpha = alpha

  def __call__(self, *args, **kwargs):
    with parameterize(self.alpha, lambda _, name, __: name == 'w'):
      return super().__call__(*args, **kwargs)


class Linear(_Parameterized, hk.Linear):
  """`hk.Linear` with a keyword `alpha`, whose `w` is phi.

  Example:
    >>> import jax.numpy as jnp
    >>> net = hk.transform(lambda x: Linear(10, alpha=2)(x))
    >>> images = jnp.ones((1, 784))
    >>> params = jax.eval_shape(net.init, jax.random.key(0), images)
    >>> jax.tree.map(lambda x: x.shape, params)
    {'linear': {'b': (10,), 'w': (784, 10)}}
  """


class Conv1D(_Parameterized, hk.Conv1D):
  """`hk.Conv1D` with a keyword `alpha`, whose `w` is phi."""


class Conv2D(_Parameterized, hk.Conv2D):
  """`hk.Conv2D` with a keyword `alpha`, whose `w` is phi."""


class Conv3D(_Parameterized, hk.Conv3D):
  """`hk.Conv3D` with a keyword `alpha`, whose `w` is phi."""


class Conv1DTranspose(_Parameterized, hk.Conv1DTranspose):
  """`hk.Conv1DTranspose` with a keyword `alpha`, whose `w` is phi."""


class Conv2DTranspose(_Parameterized, hk.Conv2DTranspose):
  """`hk.Conv2DTranspose` with a keyword `alpha`, whose `w` is phi."""


class Conv3DTranspose(_Parameterized, hk.Conv3DTranspose):
  """`hk.Conv3DTranspose` with a keyword `alpha`, whose `w` is phi."""
