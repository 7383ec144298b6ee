"""The slow, obvious implementation: densifies the weight and multiplies.

The oracle of the other implementations. It needs the memory that they save.
"""

import jax
import jax.numpy as jnp

from sparsity.kernels.shapes import Window
from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import outputs_of

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def convolve(x: jax.Array, weight: jax.Array, window: Window) -> jax.Array:
  """Returns the dense convolution; a matrix product for single pixels."""
  if window.size == x.shape[1:3] == (1, 1):
    y = jnp.matmul(x[:, 0, 0], weight[0, 0], precision='highest')
    return y[:, None, None]
  return jax.lax.conv_general_dilated(
    x, weight, window.stride, window.padding, dimension_numbers=DIMENSIONS
  )


def densify(
  values: jax.Array, s: Structure, shape: tuple[int, int]
) -> jax.Array:
  """Returns the dense [in, out] weight with the entries of A."""
  num_forward = len(s.t_columns)
  at = s.columns[:num_forward], outputs_of(s, shape)[:num_forward]
  return jnp.zeros(shape, values.dtype).at[at].set(values[:num_forward])


def _weight(values, structure, num_channels, num_outputs, window):
  shape = (window.size[0] * window.size[1] * num_channels, num_outputs)
  weight = densify(values.astype(jnp.float32), structure, shape)
  return weight.reshape(*window.size, num_channels, -1)


def forward(
  x: jax.Array,
  values: jax.Array,
  structure: Structure,
  window: Window,
  num_outputs: int,
) -> jax.Array:
  """Returns y [batch, height, width, out] in float32."""
  weight = _weight(values, structure, x.shape[-1], num_outputs, window)
  return convolve(x.astype(jnp.float32), weight, window)


def input_gradient(
  dy: jax.Array,
  values: jax.Array,
  structure: Structure,
  window: Window,
  image: tuple[int, int, int],
) -> jax.Array:
  """Returns dx [batch, *image] in float32."""
  weight = _weight(values, structure, image[-1], dy.shape[-1], window)
  x = jax.ShapeDtypeStruct((dy.shape[0], *image), jnp.float32)
  pull = jax.linear_transpose(lambda x: convolve(x, weight, window), x)
  return pull(dy.astype(jnp.float32))[0]


def weight_gradient(
  x: jax.Array, dy: jax.Array, structure: Structure, window: Window
) -> jax.Array:
  """Returns dvalues [k_B] in float32."""
  shape = (*window.size, x.shape[-1], dy.shape[-1])
  x = x.astype(jnp.float32)
  pull = jax.linear_transpose(
    lambda weight: convolve(x, weight, window),
    jax.ShapeDtypeStruct(shape, jnp.float32),
  )
  gradient = pull(dy.astype(jnp.float32))[0].reshape(-1, dy.shape[-1])
  return gradient[structure.columns, outputs_of(structure, gradient.shape)]
