"""Haiku layers that take dense, masked or compact weights.

Drop-in replacements for `hk.Linear` and `hk.Conv2D`: same parameters, names,
initial values and, with dense weights, outputs. Products have the dtype of the
inputs; the gradient of float32 weights is float32 with bfloat16 inputs, too.
"""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from sparsity.compact import products


class Linear(hk.Linear):
  """`hk.Linear` that also takes `MaskedWeights` and `CompactWeights`.

  Example:
    >>> net = hk.without_apply_rng(hk.transform(lambda x: Linear(10)(x)))
    >>> images = jnp.ones((1, 784))
    >>> params = jax.eval_shape(net.init, jax.random.key(0), images)
    >>> jax.tree.map(lambda x: x.shape, params)
    {'linear': {'b': (10,), 'w': (784, 10)}}
  """

  def __call__(self, inputs: jax.Array, *, precision=None) -> jax.Array:
    """Returns inputs w + b, [..., output_size]."""
    inputs = jnp.asarray(inputs)
    if not inputs.ndim:
      raise ValueError('expected inputs [..., in], got a scalar')
    self.input_size = inputs.shape[-1]  # type: ignore[assignment]
    shape = (inputs.shape[-1], self.output_size)
    w = hk.get_parameter(
      'w', shape, inputs.dtype, self.w_init or _truncated_normal(shape)
    )
    outputs = products.matmul(
      inputs, w, precision=precision, dtype=_product_dtype(inputs)
    )
    return _add_bias(self, outputs, (self.output_size,), inputs.dtype)


class Conv2D(hk.Conv2D):
  """`hk.Conv2D` that also takes `MaskedWeights` and `CompactWeights`.

  Compact weights require NHWC, without dilation, feature groups or a mask.
  """

  def __call__(self, inputs: jax.Array, *, precision=None) -> jax.Array:
    """Returns the convolution of a batch of images, or of a single image."""
    inputs = jnp.asarray(inputs)
    if inputs.ndim not in (3, 4):
      raise ValueError(
        f'expected inputs of rank 3 or 4, got {inputs.shape}: '
        '[batch, height, width, channels] or a single image'
      )
    if inputs.ndim == 3:
      return self(inputs[None], precision=precision)[0]
    groups = self.feature_group_count
    num_channels = inputs.shape[self.channel_index]
    if num_channels % groups:
      raise ValueError(
        f'expected channels in {groups} equal groups, got {num_channels}'
      )
    shape = (*self.kernel_shape, num_channels // groups, self.output_channels)
    w = hk.get_parameter(
      'w', shape, inputs.dtype, self.w_init or _truncated_normal(shape)
    )
    if self.mask is not None:
      if self.mask.shape != shape:
        raise ValueError(
          f'expected a mask of shape {shape}, got {self.mask.shape}'
        )
      w = w * self.mask
    outputs = products.conv(
      inputs,
      w,
      stride=self.stride,
      padding=self.padding,
      dilation=self.kernel_dilation,
      feature_group_count=groups,
      dimension_numbers=self.dimension_numbers,
      precision=precision,
      dtype=_product_dtype(inputs),
    )
    trailing = (1,) * (0 if self.channel_index == -1 else 2)
    bias_shape = (self.output_channels, *trailing)
    return _add_bias(self, outputs, bias_shape, inputs.dtype)


def _truncated_normal(shape):
  return hk.initializers.TruncatedNormal(1 / np.sqrt(np.prod(shape[:-1])))


def _product_dtype(inputs):
  """Returns the dtype of the inputs; of integers, that of the weights."""
  is_float = jnp.issubdtype(inputs.dtype, jnp.floating)
  return inputs.dtype if is_float else None


def _add_bias(module, outputs, shape, dtype):
  if not module.with_bias:
    return outputs
  b = hk.get_parameter('b', shape, dtype, module.b_init)
  return outputs + jnp.broadcast_to(b.astype(outputs.dtype), outputs.shape)
