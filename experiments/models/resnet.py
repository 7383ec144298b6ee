"""Residual networks: ResNet-50, and for small images ResNet-18, 32 and WRN.

Convolutions have no bias. In ResNets, the last batch normalization of each
block has an initial scale of zero, so each block starts as its shortcut.

Axes: B examples, H and W pixels, C channels.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
import math

import haiku as hk
import jax
import jax.numpy as jnp

from experiments import build
from experiments.models import layers

STEMS = {'cifar': (3, 1), 'imagenet': (7, 2)}  # kernel and stride
# (x, is_training, channels, stride) -> x
Block = Callable[[jax.Array, bool, int, int], jax.Array]


def resnet50(
  *, num_classes: int, compute_dtype: str, remat: str = 'none'
) -> hk.TransformedWithState:
  """Returns ResNet-50 v1.5: a block's stride is in its 3x3 convolution.

  25,502,912 weights, 53,120 scales and offsets and 1,000 biases for 1,000
  classes. Convolutions: variance scaling (1, fan-in, truncated normal); last
  layer: normal with deviation 0.01. With remat='blocks' the backward pass
  computes the activations of a block again instead of keeping them.

  Shapes:
    images: float32 [B, H, W, C], 224 pixels and 3 channels in the literature;
      logits: float32 [B, num_classes].

  Reference:
    He et al., 2016, "Deep residual learning for image recognition".
    https://arxiv.org/abs/1512.03385
    Goyal et al., 2017, "Accurate, large minibatch SGD: training ImageNet in 1
    hour". https://arxiv.org/abs/1706.02677 (v1.5, the zero scales)
  """
  layers.check_remat(remat, ('none', 'blocks'))
  return _resnet(
    functools.partial(_rematerialized, remat == 'blocks'),
    (3, 4, 6, 3),
    64,
    'imagenet',
    num_classes,
    compute_dtype,
  )


def resnet32(
  *, num_classes: int, compute_dtype: str
) -> hk.TransformedWithState:
  """Returns the ResNet-32 of CIFAR: 16, 32 and 64 channels, 5 blocks each.

  Shortcuts have no weights: where channels grow, they take every other pixel
  and pad the channels with zeros.

  Differs from the paper: initialization as in `resnet50`.
  """
  return _resnet(_basic, (5, 5, 5), 16, 'cifar', num_classes, compute_dtype)


def resnet18(
  *, num_classes: int, compute_dtype: str
) -> hk.TransformedWithState:
  """Returns ResNet-18 for small images: 64 to 512 channels, 2 blocks each.

  Stem and shortcuts are those of `resnet32`.
  """
  return _resnet(_basic, (2, 2, 2, 2), 64, 'cifar', num_classes, compute_dtype)


def _resnet(
  block: Block,
  num_blocks: Sequence[int],
  channels: int,
  stem: str,
  num_classes: int,
  compute_dtype: str,
) -> hk.TransformedWithState:

  def forward(images, is_training):
    kernel, stride = STEMS[stem]
    with hk.name_scope('stem'):
      x = layers.conv(images, channels, kernel, stride=stride, name='conv')
      x = jax.nn.relu(layers.batch_norm(x, is_training, name='norm'))
    if stem == 'imagenet':
      x = hk.max_pool(x, (1, 3, 3, 1), (1, 2, 2, 1), 'SAME')
    for i, num in enumerate(num_blocks):
      with hk.name_scope(f'stage_{i + 1}'):
        for j in range(num):
          with hk.name_scope(f'block_{j}'):
            stride = 2 if i and not j else 1
            x = block(x, is_training, channels * 2**i, stride)
    x = jnp.mean(x, (1, 2))  # [B, C]
    return layers.Linear(
      num_classes, w_init=hk.initializers.RandomNormal(0.01), name='logits'
    )(x)

  return layers.transform(forward, compute_dtype=compute_dtype)


def _rematerialized(is_on, x, is_training, channels, stride):
  """Bottleneck whose activations are computed again if `is_on`."""

  def block(x):
    return _bottleneck(x, is_training, channels, stride)

  return layers.remat(block, is_on and is_training)(x)


def _bottleneck(x, is_training, channels, stride):
  """1x1 to `channels`, 3x3 with the stride, 1x1 to four times `channels`."""
  shortcut = _projection(x, is_training, 4 * channels, stride)
  x = layers.conv(x, channels, 1, name='conv_1')
  x = jax.nn.relu(layers.batch_norm(x, is_training, name='norm_1'))
  x = layers.conv(x, channels, 3, stride=stride, name='conv_2')
  x = jax.nn.relu(layers.batch_norm(x, is_training, name='norm_2'))
  x = layers.conv(x, 4 * channels, 1, name='conv_3')
  x = layers.batch_norm(x, is_training, zero_scale=True, name='norm_3')
  return jax.nn.relu(x + shortcut)


def _basic(x, is_training, channels, stride):
  """Two 3x3 convolutions, the first with the stride; no weights beside them."""
  shortcut = x[:, ::stride, ::stride]
  new = channels - x.shape[-1]
  shortcut = jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (new // 2, new // 2)))
  x = layers.conv(x, channels, 3, stride=stride, name='conv_1')
  x = jax.nn.relu(layers.batch_norm(x, is_training, name='norm_1'))
  x = layers.conv(x, channels, 3, name='conv_2')
  x = layers.batch_norm(x, is_training, zero_scale=True, name='norm_2')
  return jax.nn.relu(x + shortcut)


def _projection(x, is_training, channels, stride):
  """Returns x if its shape fits, else a 1x1 convolution of it."""
  if stride == 1 and x.shape[-1] == channels:
    return x
  x = layers.conv(x, channels, 1, stride=stride, name='shortcut_conv')
  return layers.batch_norm(x, is_training, name='shortcut_norm')


def wide_resnet(
  *,
  depth: int,
  width: int,
  dropout: float,
  num_classes: int,
  compute_dtype: str,
  stem_stride: int = 1,
) -> hk.TransformedWithState:
  """Returns WRN-depth-width: normalization and ReLU precede convolutions.

  WRN-22-2 with 10 classes has 1,076,912 weights, 2,720 scales and offsets and
  10 biases. Weights: variance scaling (1, fan-in, truncated normal). A depth of
  6n + 4 has n blocks in each of three stages of 16, 32 and 64 times `width`
  channels, with dropout between the convolutions of a block. The first
  convolution has a stride of 1 in the literature; 2 quarters the FLOPs.

  Shapes:
    images: float32 [B, H, W, C], 32 pixels in the literature; logits: float32
      [B, num_classes].

  Reference:
    Zagoruyko and Komodakis, 2016, "Wide residual networks".
    https://arxiv.org/abs/1605.07146
  """
  num_blocks, rest = divmod(depth - 4, 6)
  if num_blocks < 1 or rest:
    raise ValueError(
      f'expected depth = 6n + 4 with n >= 1, such as 22, got {depth}'
    )
  build.check_range(1, math.inf, width=width, stem_stride=stem_stride)
  build.check_range(0, 1, dropout=dropout)

  def forward(images, is_training):
    x = layers.conv(images, 16, 3, stride=stem_stride, name='stem_conv')
    for i, base in enumerate((16, 32, 64)):
      with hk.name_scope(f'stage_{i + 1}'):
        for j in range(num_blocks):
          with hk.name_scope(f'block_{j}'):
            stride = 2 if i and not j else 1
            x = _wide_block(x, is_training, base * width, stride, dropout)
    x = jax.nn.relu(layers.batch_norm(x, is_training, name='norm'))
    x = jnp.mean(x, (1, 2))  # [B, C]
    logits = layers.Linear(
      num_classes, w_init=layers.fan_in(1.0), name='logits'
    )
    return logits(x)

  return layers.transform(forward, compute_dtype=compute_dtype)


def _wide_block(x, is_training, channels, stride, dropout):
  shortcut = x
  x = jax.nn.relu(layers.batch_norm(x, is_training, name='norm_1'))
  if x.shape[-1] != channels:
    shortcut = layers.conv(x, channels, 1, stride=stride, name='shortcut_conv')
  x = layers.conv(x, channels, 3, stride=stride, name='conv_1')
  x = jax.nn.relu(layers.batch_norm(x, is_training, name='norm_2'))
  x = layers.drop(x, dropout, is_training)
  return layers.conv(x, channels, 3, name='conv_2') + shortcut
