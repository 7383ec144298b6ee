"""A dense weight beside its mask, for products that skip what is masked.

`forward_weights` writes the masked weight out, and dense products multiply its
zeros. Here the mask stays apart, and on a CPU the native kernels read weight
and mask together and multiply only what is active.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import optax

from sparsity import kernels
from sparsity import select
from sparsity import state as state_lib

# Up to this share of entries, and from this size on, skipping is the faster
# way; `python -m benchmarks.masked`.
MOST_ACTIVE = 0.3
SMALLEST = 2**14


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MaskedWeights:
  """A dense weight and its mask; `sparsity.matmul` and `conv` take it.

  It is the weight where the mask is True and zero elsewhere, and every function
  that takes arrays takes it for that. Take gradients by `sparsity.grad`: as of
  `forward_weights`, they are those of the weight that the network saw, dense.
  """

  values: jax.Array
  mask: jax.Array  # bool, of the same shape

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the weight."""
    return self.values.shape

  @property
  def ndim(self) -> int:
    """The rank of the weight."""
    return self.values.ndim

  @property
  def size(self) -> int:
    """The number of entries of the weight, masked or not."""
    return self.values.size

  @property
  def dtype(self) -> Any:
    """The dtype of the weight."""
    return self.values.dtype

  def astype(self, dtype: Any) -> 'MaskedWeights':
    """Returns it with values of another dtype."""
    return MaskedWeights(self.values.astype(dtype), self.mask)

  def reshape(self, *shape: Any) -> 'MaskedWeights':
    """Returns it with another shape."""
    return MaskedWeights(self.values.reshape(*shape), self.mask.reshape(*shape))

  def __jax_array__(self) -> jax.Array:
    return _write_out(self.values, self.mask)


def is_masked(x: Any) -> bool:
  """Returns whether `x` is a `MaskedWeights`."""
  return isinstance(x, MaskedWeights)


def masked_weights(tx: Any, params: Any, state: optax.OptState) -> Any:
  """Returns what the network sees, for products that skip what is masked.

  It is `forward_weights(params, state)`, and what is computed with it is the
  same up to rounding. Layers of which enough is masked are `MaskedWeights`;
  others, and all layers of a method whose number of active entries changes, are
  masked arrays. On a CPU the products of `sparsity.matmul`, `sparsity.conv` and
  the layers of `sparsity.modules` with them then skip what is masked; the
  gradient of the weights is a dense product. Elsewhere nothing changes.

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
    tx: the sparse method, outermost, which knows how much is masked.
    params: a tree like the one the optimizer was initialized with, raw or
      reparameterized.
    state: of `tx`; masked, not compact.

  Raises:
    ValueError: If `tx` is not one of this package's methods itself, or `state`
      does not hold exactly one `SparseState`.
  """
  if not isinstance(tx, state_lib.SparseTransformation):
    raise ValueError(
      'expected a sparse method such as topkast.topkast(...) or '
      f'sparsity.rigl(...), got {type(tx).__name__}: it has to be the '
      'outermost transformation'
    )
  seen = state_lib.forward_weights(params, state)
  counts = tx.method.make_counts(params)
  if tx.method.rule.changes == 'numbers' or counts.scope == 'global':
    return seen
  values = select.pick(params, counts.sizes)
  masks = select.pick(state_lib.active_sets(state).forward, counts.sizes)
  skipped = {
    path: MaskedWeights(values[path], masks[path])
    for path, size in counts.sizes.items()
    if counts.forward[path] <= MOST_ACTIVE * size and size >= SMALLEST
  }
  return select.put(seen, skipped)


def matmul(x: jax.Array, w: MaskedWeights) -> jax.Array:
  """Returns x w; see `sparsity.matmul`."""
  pixels = x.reshape(math.prod(x.shape[:-1]), 1, 1, x.shape[-1])
  kernel = MaskedWeights(w.values[None, None], w.mask[None, None])
  y = conv(pixels, kernel, (1, 1), ((0, 0), (0, 0)))
  return y.reshape(*x.shape[:-1], w.shape[-1])


def conv(x: jax.Array, w: MaskedWeights, stride: Any, padding: Any):
  """Returns the convolution of [batch, height, width, channels] with w."""
  return _conv(x, w.values, w.mask, (stride, padding))


@jax.custom_vjp
def _write_out(values, mask):
  return state_lib.masked(mask, values)


# The gradient of the weight that is seen reaches what is masked, too.
_write_out.defvjp(
  lambda values, mask: (_write_out(values, mask), None),
  lambda _, gradient: (gradient, None),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _conv(x, values, mask, window):
  return kernels.masked_conv(x, values, mask, *window)


def _conv_fwd(x, values, mask, window):
  return _conv(x, values, mask, window), (x, values, mask)


def _conv_bwd(window, saved, dy):
  x, values, mask = saved
  dx = kernels.masked_conv_dx(dy, values, mask, x.shape[1:3], *window)
  dvalues = kernels.dense_conv_dw(x, dy, values.shape, *window)
  return dx.astype(x.dtype), dvalues.astype(values.dtype), None


_conv.defvjp(_conv_fwd, _conv_bwd)
