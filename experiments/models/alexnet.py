"""A small AlexNet for the 32x32 images of CIFAR.

Axes: B examples, H and W pixels, C channels.
"""

import haiku as hk
import jax
import jax.numpy as jnp

from experiments import build
from experiments.models import layers

CHANNELS = (64, 128, 256, 256, 256)
POOLED = (0, 1, 4)  # after these convolutions, as in AlexNet
HIDDEN = (512, 512)


def alexnet(
  *, dropout: float, num_classes: int, compute_dtype: str
) -> hk.TransformedWithState:
  """Returns five convolutions and three fully connected layers, with ReLU.

  Differs from the paper: Powerpropagation's experiment on CIFAR-10 uses "a
  smaller version of AlexNet" without giving its sizes. These are ours: 3x3
  convolutions of `CHANNELS`, 2x2 max pooling after the first, second and fifth,
  then 512, 512 and `num_classes` units; no local response normalization;
  3,914,432 weights for 32x32x3 images and 10 classes, drawn by variance scaling
  (2, fan-in, truncated normal). The rate `dropout` (0.5 in AlexNet) is that
  before the first two fully connected layers.

  Shapes:
    images: float32 [B, H, W, C], H and W at least 8; logits: float32 [B,
      num_classes].

  Reference:
    Krizhevsky et al., 2012, "ImageNet classification with deep convolutional
    neural networks". https://doi.org/10.1145/3065386
  """
  build.check_range(0, 1, dropout=dropout)
  init = layers.fan_in(2.0)

  def forward(images, is_training):
    x = images
    for i, channels in enumerate(CHANNELS):
      conv = layers.Conv2D(channels, 3, w_init=init, name=f'conv_{i}')
      x = jax.nn.relu(conv(x))  # [B, H / 2^pools, W / 2^pools, channels]
      if i in POOLED:
        x = hk.max_pool(x, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')
    x = jnp.reshape(x, (x.shape[0], -1))  # [B, D]
    for i, width in enumerate(HIDDEN):
      x = layers.drop(x, dropout, is_training)
      linear = layers.Linear(width, w_init=init, name=f'linear_{i}')
      x = jax.nn.relu(linear(x))  # [B, width]
    logits = layers.Linear(
      num_classes, w_init=layers.fan_in(1.0), name='logits'
    )
    return logits(x)

  return layers.transform(forward, compute_dtype=compute_dtype)
