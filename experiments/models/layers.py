"""Layers common to all models, and their compute types.

The layers with weights are `sparsity.modules`, so that models can be
reparameterized and masked in one place.

Axes: B examples, H and W pixels, C channels.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import jmp

import sparsity

COMPUTE_DTYPES = ('float32', 'bfloat16')
REMAT = ('none', 'attention', 'blocks')

Linear = sparsity.modules.Linear
Conv2D = sparsity.modules.Conv2D


def patch_conv(
  x: jax.Array,
  channels: int,
  kernel: int,
  *,
  padding: str,
  w_init: hk.initializers.Initializer,
  name: str,
) -> jax.Array:
  """Returns a convolution of stride 1, as one product with all patches.

  Same function and parameters as `Conv2D`, with examples as the last axis:
  [C, H, W, B] to [channels, H, W, B]. Inside a loop of steps, XLA's CPU
  compiler runs convolutions on one thread and without its fast kernels. Small
  networks train several times faster this way, as whole rows of pixels are
  copied, at the memory of one patch per pixel.
  """
  with hk.name_scope(name):
    shape = (kernel, kernel, x.shape[0], channels)
    w = hk.get_parameter('w', shape, init=w_init)
    b = hk.get_parameter('b', (channels,), init=jnp.zeros)
  if padding == 'SAME':
    sides = ((kernel - 1) // 2, kernel // 2)
    x = jnp.pad(x, ((0, 0), sides, sides, (0, 0)))
  h, width = (side - kernel + 1 for side in x.shape[1:3])
  patches = jnp.stack(
    [
      x[:, i : i + h, j : j + width]
      for i in range(kernel)
      for j in range(kernel)
    ]
  )
  rows = w.reshape(-1, channels)  # [kernel * kernel * C, channels]
  y = sparsity.matmul(patches.reshape(rows.shape[0], -1).T, rows).T
  return y.reshape(channels, h, width, -1) + b[:, None, None, None]


def transform(
  forward: Callable[[jax.Array, bool], jax.Array], *, compute_dtype: str
) -> hk.TransformedWithState:
  """Returns `forward(images, is_training)` with parameters and state.

  Parameters, batch statistics, batch normalization and logits are float32.
  Weights and inputs are cast where a layer multiplies them, so powers, masks
  and the optimizer work in float32.
  """
  check_dtype(compute_dtype)

  def mixed(images, is_training):
    with precision(compute_dtype):
      logits = forward(images.astype(compute_dtype), is_training)
      return logits.astype(jnp.float32)

  return hk.transform_with_state(mixed)


@contextlib.contextmanager
def precision(compute_dtype: str) -> Iterator[None]:
  """Keeps parameters and normalization in float32, its results in a dtype.

  `Linear` and `Conv2D` multiply in the dtype of their inputs.
  """
  full = jnp.float32
  policy = jmp.Policy(full, full, jnp.dtype(compute_dtype))

  def create(next_creator, shape, dtype, init, context):
    del dtype, context
    return next_creator(shape, full, init)

  with (
    hk.custom_creator(create),
    hk.mixed_precision.push_policy(hk.BatchNorm, policy),
    hk.mixed_precision.push_policy(hk.LayerNorm, policy),
  ):
    yield


def check_dtype(compute_dtype: str) -> None:
  """Raises ValueError unless networks compute in the dtype."""
  if compute_dtype not in COMPUTE_DTYPES:
    raise ValueError(
      f'expected compute_dtype out of {COMPUTE_DTYPES}, got {compute_dtype!r}'
    )


def remat(function: Callable[..., Any], is_on: bool) -> Callable[..., Any]:
  """Returns a function whose activations are computed again if `is_on`."""
  return hk.remat(function) if is_on else function


def check_remat(remat: str, known: tuple[str, ...] = REMAT) -> None:
  """Raises ValueError unless a model knows a value of `remat`."""
  if remat not in known:
    raise ValueError(f'expected remat out of {known}, got {remat!r}')


def conv(
  x: jax.Array,
  channels: int,
  kernel: int,
  *,
  stride: int = 1,
  scale: float = 1.0,
  name: str,
) -> jax.Array:
  """Returns a convolution without bias, [B, H / stride, W / stride, channels].

  (kernel - 1) / 2 zeros are padded on each side, as is usual in residual
  networks; with a stride, 'SAME' would depend on the size of the input.
  """
  side = (kernel - 1) // 2
  return Conv2D(
    channels,
    kernel,
    stride,
    padding=[(side, side)] * 2,
    with_bias=False,
    w_init=fan_in(scale),
    name=name,
  )(x)


def batch_norm(
  x: jax.Array, is_training: bool, *, zero_scale: bool = False, name: str
) -> jax.Array:
  """Returns batch normalization with decay 0.9 and epsilon 1e-5.

  Under `jax.jit`, statistics are those of the global batch, sharded or not.
  """
  return hk.BatchNorm(
    create_scale=True,
    create_offset=True,
    decay_rate=0.9,
    eps=1e-5,
    scale_init=jnp.zeros if zero_scale else jnp.ones,
    name=name,
  )(x, is_training)


def max_pool(x: jax.Array) -> jax.Array:
  """Returns 2x2 max pooling, [C, H / 2, W / 2, B]; H and W are even.

  Unlike that of `hk.max_pool`, its gradient is no scatter; equal pixels share
  the gradient.
  """
  c, h, w, b = x.shape
  return jnp.max(x.reshape(c, h // 2, 2, w // 2, 2, b), (2, 4))


def fan_in(scale: float) -> hk.initializers.Initializer:
  """Returns variance scaling: fan-in, truncated normal."""
  return hk.initializers.VarianceScaling(scale, 'fan_in', 'truncated_normal')


def drop(x: jax.Array, rate: float, is_training: bool) -> jax.Array:
  """Returns x after dropout in training, x otherwise."""
  if not is_training or not rate:
    return x
  return hk.dropout(hk.next_rng_key(), rate, x)
