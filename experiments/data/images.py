"""Images from bytes to pixels: decode, crop, resize, normalize.

S: image_size, the side of the network's input.
"""

import math

import cv2
import numpy as np

AREA = (0.08, 1.0)  # range of the random crop's share of the image
RATIO = (3 / 4, 4 / 3)  # range of the random crop's width / height
_ATTEMPTS = 10  # to draw a crop that fits


def train_view(
  content: bytes, rng: np.random.Generator, image_size: int
) -> np.ndarray | None:
  """Returns a random crop of an image, flipped with probability 1/2.

  The view is uint8 [S, S, 3], RGB; None if `content` does not decode.

  Reference:
    Szegedy et al., 2014, "Going deeper with convolutions".
    https://arxiv.org/abs/1409.4842
  """
  image = decode(content)
  if image is None:
    return None
  top, left, height, width = random_crop(rng, *image.shape[:2])
  flip = rng.random() < 0.5
  image = image[top : top + height, left : left + width]
  image = cv2.resize(image, (image_size, image_size))
  return cv2.cvtColor(cv2.flip(image, 1) if flip else image, cv2.COLOR_BGR2RGB)


def evaluation_view(
  content: bytes, image_size: int, resize: int
) -> np.ndarray | None:
  """Returns the center of an image after resizing its short side to `resize`.

  The view is uint8 [S, S, 3], RGB; None if `content` does not decode.
  """
  image, size = decode(content), image_size
  if image is None:
    return None
  scale = resize / min(image.shape[:2])
  height, width = (max(round(x * scale), size) for x in image.shape[:2])
  image = cv2.resize(image, (width, height))
  top, left = (height - size) // 2, (width - size) // 2
  image = image[top : top + size, left : left + size]
  return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def normalize(images: np.ndarray, mean, std) -> np.ndarray:
  """Returns (images / 255 - mean) / std of uint8 [..., H, W, 3], float32.

  Mean and deviation are [3]; a deviation of 0 counts as 1.
  """
  values = np.arange(256)[:, np.newaxis] / 255 - np.array(mean)
  values /= np.where(np.array(std) > 0, std, 1)
  rows = images.reshape(-1, *images.shape[-2:])
  table = values.astype(np.float32)[np.newaxis]  # [1, 256, 3]
  return cv2.LUT(rows, table).reshape(images.shape)


def random_crop(
  rng: np.random.Generator,
  height: int,
  width: int,
  area: tuple[float, float] = AREA,
) -> tuple[int, int, int, int]:
  """Returns top, left, height and width of a random crop.

  The area is uniform, the ratio of width to height log-uniform. If none of ten
  draws fits, the crop is the largest centered one with a ratio in range.
  """
  for _ in range(_ATTEMPTS):
    target = height * width * rng.uniform(*area)
    shape = math.exp(rng.uniform(*map(math.log, RATIO)))
    h, w = round(math.sqrt(target / shape)), round(math.sqrt(target * shape))
    if 1 <= h <= height and 1 <= w <= width:
      top, left = rng.integers((height - h + 1, width - w + 1)).tolist()
      return top, left, h, w
  nearest = min(max(width / height, RATIO[0]), RATIO[1])
  h = max(min(height, round(width / nearest)), 1)
  w = max(min(width, round(height * nearest)), 1)
  return (height - h) // 2, (width - w) // 2, h, w


def decode(content: bytes) -> np.ndarray | None:
  """Returns an image, uint8 BGR, or None if `content` does not decode."""
  if not content:
    return None
  # The orientation is ignored, as is usual for ImageNet.
  flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
  try:
    return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
  except cv2.error:  # such as a header with too many pixels
    return None
