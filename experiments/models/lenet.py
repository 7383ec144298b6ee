"""LeNet-300-100: the fully connected network of the MNIST experiments."""

import haiku as hk
import jax
import jax.numpy as jnp

from experiments.models import layers


def lenet(
  *, hidden: tuple[int, ...], num_classes: int
) -> hk.TransformedWithState:
  """Returns a fully connected network with ReLU and zero initial biases.

  Weights: variance scaling (1, fan-in, truncated normal).

  Shapes:
    images: [B, ...], flattened; logits: float32 [B, num_classes].

  Args:
    hidden: width of each hidden layer; (300, 100) in the literature.

  Reference:
    LeCun et al., 1998, "Gradient-based learning applied to document
    recognition". https://doi.org/10.1109/5.726791
  """
  widths = (*hidden, num_classes)
  if not all(width >= 1 for width in widths):
    raise ValueError(f'expected layer widths >= 1, got {widths}')

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
