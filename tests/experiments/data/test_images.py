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
def test_the_orientation_is_ignored(kind):
  file, exif = io.BytesIO(), Image.Exif()
  exif[0x0112] = 6  # asks viewers to turn it by 90 degrees
  image = Image.fromarray(photographs.view(1, 40, 90)[..., ::-1])
  image.save(file, kind, exif=exif)
  assert images.decode(file.getvalue()).shape == (40, 90, 3)


def test_a_view_is_a_crop_resized_and_flipped():
  content, flips = photographs.jpeg(0), []
  image = images.decode(content)[..., ::-1]
  for seed in range(10):
    rng = np.random.default_rng(seed)
    top, left, h, w = images.random_crop(rng, *image.shape[:2])
    part = np.ascontiguousarray(image[top : top + h, left : left + w])
    expected = cv2.resize(part, (SIZE, SIZE))
    flips.append(rng.random() < 0.5)
    expected = expected[:, ::-1] if flips[-1] else expected
    view = images.train_view(content, np.random.default_rng(seed), SIZE)
    np.testing.assert_array_equal(view, expected)
  assert 0 < sum(flips) < 10


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
  resized = cv2.resize(np.ascontiguousarray(image), shape[::-1])
  top, left = (shape[0] - 224) // 2, (shape[1] - 224) // 2
  expected = resized[top : top + 224, left : left + 224]
  np.testing.assert_array_equal(view, expected)


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
