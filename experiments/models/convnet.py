"""LeNet-5: the small convolutional network for MNIST."""

import haiku as hk
import jax
import jax.numpy as jnp

from experiments.models import layers


def lenet5(*, num_classes: int, compute_dtype: str) -> hk.TransformedWithState:
  """Returns two 5x5 convolutions and three fully connected layers.

  6 and 16 channels, each followed by 2x2 max pooling, then 120 and 84 units:
  61,470 weights for 28 x 28 gray pixels and ten classes.

  Differs from the paper: ReLU, max pooling, and an ordinary last layer, as is
  usual now; variance scaling (2, fan-in, truncated normal).

  Shapes:
    images: float32 [B, H, W, C]; logits: float32 [B, num_classes].

  Reference:
    LeCun et al., 1998, "Gradient-based learning applied to document
    recognition". https://doi.org/10.1109/5.726791
  """
  if num_classes < 1:
    raise ValueError(f'expected num_classes >= 1, got {num_classes}')
  init = layers.fan_in(2.0)

  def forward(images: jax.Array, is_training: bool) -> jax.Array:
    del is_training
    layers.check_images(images)
    x = images
    for i, (channels, padding) in enumerate(((6, 'SAME'), (16, 'VALID'))):
      x = layers.PatchConv2D(
        channels, 5, padding=padding, w_init=init, name=f'conv_{i + 1}'
      )(x)
      x = layers.max_pool(jax.nn.relu(x))
    x = jnp.reshape(x, (x.shape[0], -1))  # [B, 400] of 28 x 28 pixels
    for i, width in enumerate((120, 84)):
      x = layers.Linear(width, w_init=init, name=f'linear_{i + 1}')(x)
      x = jax.nn.relu(x)
    return layers.Linear(num_classes, w_init=init, name='logits')(x)

  return layers.transform(forward, compute_dtype=compute_dtype)
