"""Windows of convolutions."""

from collections.abc import Sequence
from typing import NamedTuple

import jax

# 'SAME', 'VALID', or ((top, bottom), (left, right)).
Padding = str | Sequence[tuple[int, int]]


class Window(NamedTuple):
  """Size, stride and padding of a convolution's kernel."""

  size: tuple[int, int]
  stride: tuple[int, int]
  padding: tuple[tuple[int, int], tuple[int, int]]

  def output_size(self, height: int, width: int) -> tuple[int, int]:
    """Returns the height and width of the result."""
    result = []
    for axis, length in enumerate((height, width)):
      reach = length + sum(self.padding[axis]) - self.size[axis]
      result.append(max(0, reach // self.stride[axis] + 1))
    return result[0], result[1]


def make_window(
  image_size: tuple[int, int],
  kernel_size: tuple[int, int],
  stride: int | Sequence[int],
  padding: Padding,
) -> Window:
  """Returns the window of a convolution, with explicit padding.

  Example:
    >>> make_window((28, 28), (3, 3), 2, 'SAME').padding
    ((0, 1), (0, 1))

  Raises:
    ValueError: If stride or padding is malformed.
  """
  strides = (stride, stride) if isinstance(stride, int) else tuple(stride)
  if len(strides) != 2 or min(strides) < 1:
    raise ValueError(f'expected one or two positive strides, got {stride}')
  if isinstance(padding, str):
    if padding not in ('SAME', 'VALID'):
      raise ValueError(
        f"expected padding 'SAME', 'VALID' or two pairs, got {padding!r}"
      )
    padding = jax.lax.padtype_to_pads(image_size, kernel_size, strides, padding)
  pads = tuple(tuple(int(pad) for pad in pair) for pair in padding)
  if [len(pair) for pair in pads] != [2, 2] or min(min(pads)) < 0:
    raise ValueError(
      f'expected padding ((top, bottom), (left, right)), got {padding}'
    )
  return Window(tuple(kernel_size), strides, pads)


PIXEL = Window((1, 1), (1, 1), ((0, 0), (0, 0)))  # of a matrix product
