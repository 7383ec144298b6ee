import io
import math

import cv2
import hypothesis
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pytest

from experiments.data import images
from tests import photographs

SIZE, RESIZE = 224, 256


@hypothesis.settings(deadline=None)
@hypothesis.given(
  st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**32 - 1)
)
def test_crops_are_within_the_image(height, width, seed):
  top, left, h, w = images.random_crop(
    np.random.default_rng(seed), height, width
  )
  assert 0 <= top < top + h <= height
  assert 0 <= left < left + w <= width


@pytest.mark.parametrize(
  ('size', 'expected'),
  [((600, 60), (260, 0, 80, 60)), ((60, 600), (0, 260, 60, 80))],
)
def test_where_no_draw_fits_the_crop_is_the_largest_in_the_center(
  size, expected
):
  rng = np.random.default_rng(0)
  crops = [images.random_crop(rng, *size, (0.9, 1.0)) for _ in range(5)]
  assert crops == [expected] * 5


def test_areas_are_uniform_and_ratios_log_uniform():
  rng = np.random.default_rng(0)
  # Areas up to a half always fit, so the first draw counts.
  crops = np.array(
    [images.random_crop(rng, 1000, 1000, (0.1, 0.5)) for _ in range(4000)]
  )
  share = crops[:, 2] * crops[:, 3] / 1e6
  logs = np.log(crops[:, 3] / crops[:, 2]) / math.log(4 / 3)
  place = crops[:, 0] / (1000 - crops[:, 2])
  for values, low, high in (
    (share, 0.1, 0.5), (logs, -1, 1), (place, 0, 1),
  ):  # fmt: skip
    quartiles = np.quantile((values - low) / (high - low), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [0.25, 0.5, 0.75], atol=0.04)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_the_header_has_the_shape_and_its_orientation_is_ignored(kind):
  file, exif = io.BytesIO(), Image.Exif()
  exif[0x0112] = 6  # asks viewers to turn it by 90 degrees
  image = Image.fromarray(photographs.view(1, 40, 90)[..., ::-1])
  image.save(file, kind, exif=exif)
  content = file.getvalue()
  assert images.decode(content).shape == (40, 90, 3)
  assert images.read_shape(content) == (40, 90)
  view = images.train_view(content, np.random.default_rng(0), SIZE)
  assert view.shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize(
  ('shrink', 'factor'),
  [(0.5, 1), (1.9, 1), (2, 2), (4, 4), (100, 8)],
)
def test_an_image_is_decoded_as_large_as_needed(shrink, factor):
  content = photographs.encode('.jpg', photographs.view(2, 160, 240))
  decoded = images.decode(content, shrink)
  assert decoded.shape == (160 // factor, 240 // factor, 3)


def textbook_view(content, seed, side):
  """Returns a view of the image decoded in full, and its crop and flip."""
  image, rng = images.decode(content)[..., ::-1], np.random.default_rng(seed)
  crop = images.random_crop(rng, *image.shape[:2])
  top, left, height, width = crop
  part = np.ascontiguousarray(image[top : top + height, left : left + width])
  view = cv2.resize(part, (side, side))
  flip = rng.random() < 0.5
  return view[:, ::-1] if flip else view, crop, flip


def test_views_that_are_not_reduced_are_exact():
  content, flips = photographs.jpeg(0), []
  for seed in range(10):
    view = images.train_view(content, np.random.default_rng(seed), SIZE)
    expected, _, flip = textbook_view(content, seed, SIZE)
    np.testing.assert_array_equal(view, expected)
    flips.append(flip)
  assert 0 < sum(flips) < 10


def test_a_reduced_view_is_nearly_that_of_the_whole_image():
  side, reduced = 56, 0
  content = photographs.encode(
    '.jpg', photographs.view(5, 901, 1203), [cv2.IMWRITE_JPEG_QUALITY, 95]
  )
  for seed in range(8):
    view = images.train_view(content, np.random.default_rng(seed), side)
    expected, crop, _ = textbook_view(content, seed, side)
    reduced += min(crop[2:]) >= 8 * side
    smooth = cv2.blur(expected, (3, 3)).astype(int)
    moved = np.roll(smooth, 2, axis=1)
    error, error_of_moved = (
      np.abs(cv2.blur(view, (3, 3)).astype(int) - other).mean()
      for other in (smooth, moved)
    )
    # It differs, but less than half as much as if moved by two pixels.
    assert error < error_of_moved / 2
  assert reduced


@pytest.mark.parametrize('index', [0, 1, 5, 9])
def test_evaluation_sees_the_center(index):
  content = photographs.jpeg(index)
  view = images.evaluation_view(content, SIZE, RESIZE)
  image = images.decode(content)[..., ::-1]
  height, width = image.shape[:2]
  if height < width:
    shape = (256, round(width * 256 / height))
  else:
    shape = (round(height * 256 / width), 256)
  if min(height, width) >= 512:
    image = image.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
  resized = cv2.resize(np.ascontiguousarray(image), shape[::-1])
  top, left = (shape[0] - 224) // 2, (shape[1] - 224) // 2
  expected = resized[top : top + 224, left : left + 224]
  assert view.shape == (224, 224, 3)
  error = np.abs(view.astype(int) - expected).mean()
  assert error < 2 if min(height, width) >= 512 else error == 0


@pytest.mark.parametrize('cut', [0, 3, 300, 20_000, -2])
def test_a_truncated_image_does_not_decode(cut):
  content = photographs.jpeg(0)[:cut]
  rng = np.random.default_rng(0)
  assert images.train_view(content, rng, SIZE) is None
  assert images.evaluation_view(content, SIZE, RESIZE) is None


def test_normalization_is_by_mean_and_deviation():
  image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
  mean, std = np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.3, 0.0])
  expected = (image / 255 - mean) / np.array([0.2, 0.3, 1.0])
  found = images.normalize(image, mean, std)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
  batch = images.normalize(np.stack([image, image]), mean, std)
  np.testing.assert_array_equal(batch, np.stack([found, found]))
