"""LeNet-300-100 and LeNet-5: the networks of the MNIST experiments."""

import math

import haiku as hk
import jax
import jax.numpy as jnp

from experiments import build
from experiments.models import layers


def lenet(
  *, hidden: tuple[int, ...], num_classes: int
) -> hk.TransformedWithState:
  """Returns a fully connected network with ReLU; (300, 100) in the literature.

  Weights: variance scaling (1, fan-in, truncated normal).

  Shapes:
    images: [B, ...], flattened; logits: float32 [B, num_classes].

  Reference:
    LeCun et al., 1998, "Gradient-based learning applied to document
    recognition". https://doi.org/10.1109/5.726791
  """
  widths = (*hidden, num_classes)
  build.check_range(1, math.inf, width=min(widths))

  def forward(images: jax.Array, is_training: bool) -> jax.Array:
    del is_training
    x = jnp.reshape(images, (images.shape[0], -1))  # [B, D]
    for i, width in enumerate(widths):
      linear = layers.Linear(
        width, w_init=layers.fan_in(1.0), name=f'linear_{i}'
      )
      x = linear(x)  # [B, width]
      if i < len(hidden):
        x = jax.nn.relu(x)
    return x

  return hk.transform_with_state(forward)


def lenet5(*, num_classes: int) -> hk.TransformedWithState:
  """Returns two 5x5 convolutions and three fully connected layers.

  6 and 16 channels, each followed by 2x2 max pooling, then 120 and 84 units:
  61,470 weights for 28 x 28 gray pixels and ten classes.

  Differs from the paper: ReLU, max pooling, and an ordinary last layer, as is
  usual now; variance scaling (2, fan-in, truncated normal).

  Shapes:
    images: float32 [B, H, W, C]; logits: float32 [B, num_classes].

  Reference: see `lenet`.
  """
  init = layers.fan_in(2.0)

  def forward(images: jax.Array, is_training: bool) -> jax.Array:
    del is_training
    x = jnp.moveaxis(images, (0, 3), (3, 0))  # [C, H, W, B]
    for i, (channels, padding) in enumerate(((6, 'SAME'), (16, 'VALID'))):
      x = layers.patch_conv(
        x, channels, 5, padding=padding, w_init=init, name=f'conv_{i + 1}'
      )
      x = layers.max_pool(jax.nn.relu(x))
    x = jnp.moveaxis(x, (0, 3), (3, 0)).reshape(images.shape[0], -1)
    # [B, 400] of 28 x 28 pixels
    for i, width in enumerate((120, 84)):
      x = layers.Linear(width, w_init=init, name=f'linear_{i + 1}')(x)
      x = jax.nn.relu(x)
    return layers.Linear(num_classes, w_init=init, name='logits')(x)

  return hk.transform_with_state(forward)
