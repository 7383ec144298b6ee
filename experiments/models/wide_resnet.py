"""Wide residual networks for CIFAR, such as WRN-22-2.

Axes: B examples, H and W pixels, C channels.
"""

import haiku as hk
import jax
import jax.numpy as jnp

from experiments.models import layers


def wide_resnet(
  *,
  depth: int,
  width: int,
  dropout: float,
  num_classes: int,
  compute_dtype: str,
) -> hk.TransformedWithState:
  """Returns WRN-depth-width: normalization and ReLU precede convolutions.

  WRN-22-2 with 10 classes has 1,076,912 weights, 2,720 scales and offsets and
  10 biases. Weights: variance scaling (1, fan-in, truncated normal).

  Shapes:
    images: float32 [B, H, W, C], 32 pixels in the literature; logits: float32
      [B, num_classes].

  Args:
    depth: 6n + 4 for n blocks in each of three stages.
    width: multiple of 16, 32 and 64 channels.
    dropout: rate in [0, 1) between the convolutions of a block.

  Reference:
    Zagoruyko and Komodakis, 2016, "Wide residual networks".
    https://arxiv.org/abs/1605.07146
  """
  num_blocks, rest = divmod(depth - 4, 6)
  if num_blocks < 1 or rest:
    raise ValueError(
      f'expected depth = 6n + 4 with n >= 1, such as 22, got {depth}'
    )
  if width < 1 or num_classes < 1:
    raise ValueError(
      f'expected width and num_classes >= 1, got {width} and {num_classes}'
    )
  layers.check_dropout(dropout)

  def forward(images, is_training):
    layers.check_images(images)
    drop = dropout if is_training else 0.0
    x = layers.conv(images, 16, 3, name='stem_conv')
    for i, base in enumerate((16, 32, 64)):
      with hk.name_scope(f'stage_{i + 1}'):
        for j in range(num_blocks):
          with hk.name_scope(f'block_{j}'):
            stride = 2 if i and not j else 1
            x = _block(x, is_training, base * width, stride, drop)
    x = jax.nn.relu(layers.batch_norm(x, is_training, name='norm'))
    x = jnp.mean(x, (1, 2))  # [B, C]
    return layers.Linear(num_classes, w_init=layers.fan_in(1.0), name='logits')(
      x
    )

  return layers.transform(forward, compute_dtype=compute_dtype)


def _block(x, is_training, channels, stride, drop):
  shortcut = x
  x = jax.nn.relu(layers.batch_norm(x, is_training, name='norm_1'))
  if x.shape[-1] != channels:
    shortcut = layers.conv(x, channels, 1, stride=stride, name='shortcut_conv')
  x = layers.conv(x, channels, 3, stride=stride, name='conv_1')
  x = jax.nn.relu(layers.batch_norm(x, is_training, name='norm_2'))
  if drop:
    x = hk.dropout(hk.next_rng_key(), drop, x)
  return layers.conv(x, channels, 3, name='conv_2') + shortcut
