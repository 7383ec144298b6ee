"""A dense weight and its mask, for products that skip masked entries.

With `forward_weights` the masked weight is written out and dense products
multiply its zeros. Here the mask is kept apart: on a CPU, the native kernels
read weight and mask together and multiply active entries only.
"""

import dataclasses
import math
from typing import Any

import jax
import optax

from sparsity import kernels
from sparsity import select
from sparsity import state as state_lib

# Skipping is faster for layers of at most this density and at least this many
# entries; measured by `python -m benchmarks.masked`.
MAX_DENSITY = 0.3
MIN_SIZE = 2**14


class Weights:
  """Attributes that weights share with arrays; `values` has their dtype."""

  @property
  def ndim(self: Any) -> int:
    """The rank of the dense weight."""
    return len(self.shape)

  @property
  def size(self: Any) -> int:
    """The number of entries of the dense weight."""
    return math.prod(self.shape)

  @property
  def dtype(self: Any) -> Any:
    """The dtype of the values."""
    return self.values.dtype

  def astype(self: Any, dtype: Any) -> Any:
    """Returns these weights with values of another dtype."""
    return dataclasses.replace(self, values=self.values.astype(dtype))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MaskedWeights(Weights):
  """A dense weight and its mask, for `sparsity.matmul` and `conv`.

  Represents the weight where the mask is True, zero elsewhere; `jax.numpy`
  functions take it as that array. Take gradients with `sparsity.grad`: as with
  `forward_weights`, they are dense and with respect to the masked weight.
  """

  values: jax.Array
  mask: jax.Array  # bool, same shape

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the weight."""
    return self.values.shape

  def reshape(self, *shape: Any) -> 'MaskedWeights':
    """Returns this weight in another shape."""
    return MaskedWeights(self.values.reshape(*shape), self.mask.reshape(*shape))

  def __jax_array__(self) -> jax.Array:
    return _write_out(self.values, self.mask)


def is_masked(x: Any) -> bool:
  """Returns whether `x` is a `MaskedWeights`."""
  return isinstance(x, MaskedWeights)


def check_method(tx: Any) -> None:
  """Raises ValueError unless `tx` is one of this package's methods."""
  if not isinstance(tx, state_lib.SparseTransformation):
    raise ValueError(
      'expected a sparse method such as topkast.topkast(...) or '
      f'sparsity.rigl(...), got {type(tx).__name__}: it has to be the '
      'outermost transformation'
    )


def write_out(weights: Any) -> Any:
  """Returns a tree with masked arrays in place of `MaskedWeights`."""
  return jax.tree.map(
    lambda w: w.__jax_array__() if is_masked(w) else w,
    weights,
    is_leaf=is_masked,
  )


def masked_weights(
  tx: Any, params: Any, state: optax.OptState, *, skip: bool | None = None
) -> Any:
  """Returns `forward_weights(params, state)`, skipping masked entries.

  Results and gradients equal those of `forward_weights` up to rounding. Layers
  that are sparse enough are `MaskedWeights`: on a CPU, `sparsity.matmul`,
  `sparsity.conv` and the layers of `sparsity.modules` skip their masked entries
  (the weight gradient remains a dense product). All other layers are masked
  arrays, and so are all layers without the native kernels, with more than one
  device (each would compute the whole batch), and of methods whose number of
  active entries per layer is not constant (gradual pruning, `scope='global'`).

  Inside `sparsity.grad` and `value_and_grad` any model works: one whose layers
  cannot take `MaskedWeights`, such as `hk.Conv2D`, receives masked arrays.
  Outside of them, as in evaluation, use `forward_weights`.

  Example:
    >>> import jax.numpy as jnp, optax, sparsity
    >>> tx = sparsity.static(optax.sgd(1.0), density=0.1)
    >>> params = {'linear': {'w': jnp.ones((256, 128))}}
    >>> state = tx.init(params)
    >>> loss = lambda w, x: sparsity.matmul(x, w['linear']['w']).sum()
    >>> weights = masked_weights(tx, params, state)
    >>> gradients = sparsity.grad(loss)(weights, jnp.ones((8, 256)))
    >>> updates, state = tx.update(gradients, state, params)

  Args:
    tx: the sparse method, outermost; `state` is its masked state.
    params: raw or reparameterized.
    skip: whether the computation runs on a single device, as in
      `skip=mesh.size == 1`; by default, whether JAX has a single device.

  Raises:
    ValueError: If `tx` is not one of this package's methods itself, or `state`
      does not hold exactly one `SparseState`.
  """
  check_method(tx)
  weights = state_lib.forward_weights(params, state)
  if skip is None:
    skip = jax.device_count() == 1
  if not skip or kernels.implementation() != 'native':
    return weights
  counts = tx.method.make_counts(params)
  if tx.method.rule.changes == 'numbers' or counts.scope == 'global':
    return weights
  values = select.pick(params, counts.sizes)
  masks = select.pick(state_lib.active_sets(state).forward, counts.sizes)
  skipped = {
    path: MaskedWeights(values[path], masks[path])
    for path, size in counts.sizes.items()
    if counts.forward[path] <= MAX_DENSITY * size
    and values[path].size >= MIN_SIZE
    and values[path].ndim in (2, 4)
  }
  return select.put(weights, skipped)


@jax.custom_vjp
def _write_out(values, mask):
  return state_lib.masked(mask, values)


# Straight through the mask: the gradient is with respect to the masked weight.
_write_out.defvjp(
  lambda values, mask: (_write_out(values, mask), None),
  lambda _, gradient: (gradient, None),
)
