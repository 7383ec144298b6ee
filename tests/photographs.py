"""Small data sets of real photographs, in the layout of tensorflow-datasets.

The photographs come with scikit-image and scikit-learn. Features, files and
formats are those of the real data sets, so readers are tested from the bytes.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
import functools
import io
import pathlib
import sys
from typing import Any

import cv2
import numpy as np
import skimage
import sklearn
import tensorflow_datasets as tfds

_NAMES = (
  'data/astronaut.png', 'data/chelsea.png', 'data/coffee.png',
  'data/hubble_deep_field.jpg', 'data/ihc.png', 'data/motorcycle_left.png',
  'data/retina.jpg', 'data/rocket.jpg', 'datasets/images/china.jpg',
  'datasets/images/flower.jpg',
)  # fmt: skip
# Height and width: mostly ImageNet's usual one; some are upright, large,
# smaller than the network's input, or narrow.
SIZES = (
  (375, 500), (500, 375), (375, 500), (333, 500), (375, 500), (768, 1024),
  (375, 500), (180, 240), (375, 500), (120, 600),
)  # fmt: skip
NUM_CLASSES = 1000


@functools.cache
def photographs() -> tuple[np.ndarray, ...]:
  """Returns ten photographs, uint8 `[height, width, 3]`, BGR."""
  found = []
  for name in _NAMES:
    package = skimage if name.startswith('data/') else sklearn
    path = pathlib.Path(package.__file__).parent / name
    found.append(cv2.imread(str(path), cv2.IMREAD_COLOR))
  return tuple(found)


def view(index: int, height: int, width: int) -> np.ndarray:
  """Returns a crop of photograph `index % 10`, uint8 `[H, W, 3]`, BGR."""
  photograph = photographs()[index % len(_NAMES)]
  rng = np.random.default_rng(index)
  share = rng.uniform(0.7, 1.0)  # of the largest crop of this shape
  scale = share * min(photograph.shape[0] / height, photograph.shape[1] / width)
  crop = [max(1, int(scale * side)) for side in (height, width)]
  top, left = (
    rng.integers(whole - part + 1)
    for whole, part in zip(photograph.shape, crop, strict=False)
  )
  return cv2.resize(
    photograph[top : top + crop[0], left : left + crop[1]],
    (width, height),
    interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC,
  )


def jpeg(index: int) -> bytes:
  """Returns the JPEG file of a view, in one of the `SIZES`; some are gray."""
  size = SIZES[(index + index // len(_NAMES)) % len(SIZES)]
  image = view(index, *size)
  if index % 16 == 15:
    image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
  return encode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 95])


def label(index: int) -> int:
  """Returns the label of a view: 111 times the number of its photograph."""
  return 111 * (index % len(_NAMES))


def encode(kind: str, image: np.ndarray, options=()) -> bytes:
  """Returns an image as the content of a file of a kind, such as '.png'."""
  _, content = cv2.imencode(kind, image, options)
  return content.tobytes()


def imagenet_example(index: int, damaged: Collection[int] = ()) -> dict:
  """Returns an example of ImageNet; the images in `damaged` are truncated."""
  image = jpeg(index)
  return {
    'file_name': f'n{label(index):08d}_{index}.JPEG',
    'image': image[: len(image) // 2] if index in damaged else image,
    'label': label(index),
  }


def write_imagenet(
  data_dir,
  *,
  num_train: int,
  num_validation: int,
  example: Callable[[int], dict] = imagenet_example,
) -> None:
  """Writes views as imagenet2012; indices of `validation` follow `train`."""
  features = {
    'image': tfds.features.Image(encoding_format='jpeg'),
    'label': tfds.features.ClassLabel(num_classes=NUM_CLASSES),
    'file_name': tfds.features.Text(),
  }
  indices = {
    'train': range(num_train),
    'validation': range(num_train, num_train + num_validation),
  }
  write(data_dir, 'imagenet2012', '5.1.0', features, indices, example, 3)


def write_cifar(
  data_dir,
  *,
  num_classes: int,
  num_train: int,
  num_test: int,
  num_shards: int = 1,
  without_label: Collection[int] = (),
) -> None:
  """Writes views as cifar10 or cifar100; the label of some is -1."""
  features = {
    'id': tfds.features.Text(),
    'image': tfds.features.Image(shape=(32, 32, 3)),
    'label': tfds.features.ClassLabel(num_classes=num_classes),
  }

  def make(index):
    content = encode('.png', view(index, 32, 32))
    own = -1 if index in without_label else index % num_classes
    return {'id': f'{index:05d}', 'image': content, 'label': own}

  indices = {
    'train': range(num_train),
    'test': range(num_train, num_train + num_test),
  }
  name = f'cifar{num_classes}'
  write(data_dir, name, '3.0.2', features, indices, make, num_shards)


def write(
  data_dir,
  name: str,
  version: str,
  features: Mapping[str, Any],
  indices: Mapping[str, range],
  example: Callable[[int], dict],
  num_shards: int,
) -> None:
  """Writes a data set to a folder of tensorflow-datasets; no empty splits."""

  def generate(split):
    for index in split:
      made = example(index)
      yield index, {**made, 'image': io.BytesIO(made['image'])}

  with tfds.core.registered.skip_registration():
    builder_class = type(
      name,
      (tfds.core.GeneratorBasedBuilder,),
      {
        'name': name,
        'VERSION': tfds.core.Version(version),
        '_info': lambda self: tfds.core.DatasetInfo(
          builder=self, features=tfds.features.FeaturesDict(features)
        ),
        '_split_generators': lambda self, _: {
          key: generate(split) for key, split in indices.items() if split
        },
        '_generate_examples': generate,
      },
    )
  builder = builder_class(data_dir=str(data_dir), file_format='array_record')
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(num_shards=num_shards)
  )


def main():
  """Writes a small ImageNet: python -m tests.photographs DIR."""
  [folder] = sys.argv[1:]
  write_imagenet(folder, num_train=40, num_validation=21)


if __name__ == '__main__':
  main()
