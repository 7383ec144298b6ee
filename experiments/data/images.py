"""From the bytes of an image to what a network sees: decode, crop, normalize.

OpenCV does the work, of which decoding is nearly all; so an image is decoded
only as large as its crop needs.

S: image_size, the side of what the network sees.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

# Means and standard deviations of ImageNet's red, green and blue in [0, 1], as
# everybody has used them since torchvision.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_INTERPOLATIONS = {
  'linear': cv2.INTER_LINEAR,
  'cubic': cv2.INTER_CUBIC,
  'area': cv2.INTER_AREA,
}
INTERPOLATIONS = tuple(_INTERPOLATIONS)

_ATTEMPTS = 10  # to draw a crop that fits

# JPEG decoders halve an image for next to nothing. Orientation is ignored: so
# ImageNet has been read ever since, and sizes are those in the file's header.
_FLAGS = {
  1: cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
  2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION,
  4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION,
  8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION,
}


class Crop(NamedTuple):
  """A rectangle of an image, in pixels."""

  top: int
  left: int
  height: int
  width: int


class Recipe(NamedTuple):
  """How images are cropped and resized."""

  image_size: int  # S
  resize: int  # the short side before the central crop of the evaluation
  area: tuple[float, float]  # of the random crop, as a share of the image
  ratio: tuple[float, float]  # width / height of the random crop
  interpolation: str  # one of INTERPOLATIONS


def check_recipe(recipe: Recipe) -> None:
  """Checks that a recipe can be followed.

  Raises:
    ValueError: If one of its values is out of range.
  """
  size, resize, area, ratio, interpolation = recipe
  if not 1 <= size <= resize:
    raise ValueError(
      f'expected 1 <= image_size <= resize, got image_size {size} and resize '
      f'{resize}'
    )
  if not (len(area) == 2 and 0 < area[0] <= area[1] <= 1):
    raise ValueError(f'expected area (low, high) within (0, 1], got {area}')
  if not (len(ratio) == 2 and 0 < ratio[0] <= ratio[1] < math.inf):
    raise ValueError(f'expected ratio (low, high) above 0, got {ratio}')
  if interpolation not in _INTERPOLATIONS:
    raise ValueError(
      f'expected an interpolation among {", ".join(INTERPOLATIONS)}; got '
      f'{interpolation!r}'
    )


def train_view(
  content: bytes, rng: np.random.Generator, recipe: Recipe
) -> np.ndarray | None:
  """Returns a random crop of an image, flipped half of the time.

  Shapes:
    returned: uint8 `[S, S, 3]`, red first; None if `content` does not decode.

  Reference:
    Szegedy et al., 2014, "Going deeper with convolutions".
    https://arxiv.org/abs/1409.4842
  """
  size = recipe.image_size
  height_width, decoded = _size(content)
  if height_width is None:
    return None
  crop = random_crop(rng, *height_width, recipe.area, recipe.ratio)
  flip = rng.random() < 0.5
  if decoded is None:
    shrink = min(crop.height, crop.width) / size
    decoded = decode(content, shrink)
    if decoded is None:
      return None
    crop = _scale_crop(crop, height_width, decoded.shape)
  image = resize(
    decoded[
      crop.top : crop.top + crop.height, crop.left : crop.left + crop.width
    ],
    size,
    size,
    recipe.interpolation,
  )
  return _red_first(cv2.flip(image, 1) if flip else image)


def evaluation_view(content: bytes, recipe: Recipe) -> np.ndarray | None:
  """Returns the center of an image whose short side was resized.

  Shapes:
    returned: uint8 `[S, S, 3]`, red first; None if `content` does not decode.
  """
  size = recipe.image_size
  height_width, decoded = _size(content)
  if height_width is None:
    return None
  scale = recipe.resize / min(height_width)
  height, width = (max(round(side * scale), size) for side in height_width)
  if decoded is None:
    decoded = decode(content, 1 / scale)
    if decoded is None:
      return None
  image = resize(decoded, height, width, recipe.interpolation)
  top, left = (height - size) // 2, (width - size) // 2
  return _red_first(image[top : top + size, left : left + size])


def normalization(mean, std) -> np.ndarray:
  """Returns the normalized values of bytes: `(byte / 255 - mean) / std`.

  Where `std` is 0, the difference from the mean is left as it is.

  Shapes:
    mean, std: `[3]`; the result is float32 `[1, 256, 3]`.
  """
  std = np.array(std, np.float64)
  values = np.arange(256)[:, np.newaxis] / 255 - np.array(mean)
  values /= np.where(std > 0, std, 1)
  return values.astype(np.float32)[np.newaxis]


def normalize(image: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
  """Writes the normalized values of an image to `out`.

  Shapes:
    image: uint8 `[height, width, 3]`.
    table: from `normalization`.
    out: float32, contiguous, of the shape of the image.
  """
  written = cv2.LUT(image, table, out)
  if not np.shares_memory(written, out):
    raise ValueError(
      f'expected out float32, contiguous, of the shape {image.shape}; got '
      f'{out.dtype} {out.shape}'
    )


def random_crop(
  rng: np.random.Generator,
  height: int,
  width: int,
  area: tuple[float, float],
  ratio: tuple[float, float],
) -> Crop:
  """Returns a crop of a random area and shape at a random place.

  The area is uniform, the ratio of width to height log-uniform. If none of ten
  draws fits, the crop is the largest in the middle whose ratio is in range.
  """
  areas = height * width * rng.uniform(*area, _ATTEMPTS)
  ratios = np.exp(
    rng.uniform(math.log(ratio[0]), math.log(ratio[1]), _ATTEMPTS)
  )
  heights = np.rint(np.sqrt(areas / ratios)).astype(int)
  widths = np.rint(np.sqrt(areas * ratios)).astype(int)
  fits = (
    (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
  )
  if fits.any():
    first = int(fits.argmax())
    crop_height, crop_width = int(heights[first]), int(widths[first])
    top = int(rng.integers(height - crop_height + 1))
    left = int(rng.integers(width - crop_width + 1))
    return Crop(top, left, crop_height, crop_width)
  nearest = min(max(width / height, ratio[0]), ratio[1])
  crop_height = max(min(height, round(width / nearest)), 1)
  crop_width = max(min(width, round(height * nearest)), 1)
  return Crop(
    (height - crop_height) // 2,
    (width - crop_width) // 2,
    crop_height,
    crop_width,
  )


def decode(content: bytes, shrink: float = 1.0) -> np.ndarray | None:
  """Returns an image, at 1/2, 1/4 or 1/8 if it is to shrink by as much or more.

  Shapes:
    returned: uint8 `[height, width, 3]`, blue first; None if `content` does not
      decode.
  """
  if not content:
    return None
  factor = max(factor for factor in _FLAGS if factor <= max(shrink, 1))
  try:
    return cv2.imdecode(np.frombuffer(content, np.uint8), _FLAGS[factor])
  except cv2.error:  # For example a header that promises too many pixels.
    return None


def resize(
  image: np.ndarray, height: int, width: int, interpolation: str
) -> np.ndarray:
  """Returns an image resized.

  Where neither side shrinks, 'area' is 'linear': the mean over an area of less
  than a pixel is that pixel, and would show squares.
  """
  grows = height >= image.shape[0] and width >= image.shape[1]
  if interpolation == 'area' and grows:
    interpolation = 'linear'
  return cv2.resize(
    image, (width, height), interpolation=_INTERPOLATIONS[interpolation]
  )


def jpeg_size(content: bytes) -> tuple[int, int] | None:
  """Returns height and width from the header of a JPEG; None if it is none."""
  position = 2
  if content[:position] != b'\xff\xd8':
    return None
  while position + 9 <= len(content) and content[position] == 0xFF:
    marker = content[position + 1]
    if marker == 0xFF:  # padding
      position += 1
    elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
      height = int.from_bytes(content[position + 5 : position + 7])
      width = int.from_bytes(content[position + 7 : position + 9])
      return (height, width) if height and width else None
    else:
      position += 2 + int.from_bytes(content[position + 2 : position + 4])
  return None


def _size(content: bytes):
  """Returns the height and width, and the image if it had to be decoded."""
  size = jpeg_size(content)
  if size is not None:
    return size, None
  decoded = decode(content)
  return (None, None) if decoded is None else (decoded.shape[:2], decoded)


def _scale_crop(crop: Crop, size, shape) -> Crop:
  """Returns the crop of an image that was decoded at another size."""
  if tuple(size) == tuple(shape[:2]):
    return crop
  scales = [shape[i] / size[i] for i in range(2)]
  height = min(max(round(crop.height * scales[0]), 1), shape[0])
  width = min(max(round(crop.width * scales[1]), 1), shape[1])
  top = min(round(crop.top * scales[0]), shape[0] - height)
  left = min(round(crop.left * scales[1]), shape[1] - width)
  return Crop(top, left, height, width)


def _red_first(image: np.ndarray) -> np.ndarray:
  return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
