"""Small data sets of real photographs, laid out as tensorflow-datasets does.

The photographs come with scikit-image and scikit-learn, so nothing is
downloaded; what is written has the features, the files and the formats of the
real data sets, so that all that reads these is tested from the bytes on.
"""

from collections.abc import Callable
from collections.abc import Iterator
import functools
import io
import pathlib
import sys

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
# Height and width. Most of ImageNet's images have the first; some are upright,
# large, smaller than what the network sees, or narrow.
SIZES = (
  (375, 500), (500, 375), (375, 500), (333, 500), (375, 500), (768, 1024),
  (375, 500), (180, 240), (375, 500), (120, 600),
)  # fmt: skip
NUM_CLASSES = 1000
LABEL_EVERY = 111  # Photograph i has the label 111 i: 0 and 999 among them.


@functools.cache
def photographs() -> tuple[np.ndarray, ...]:
  """Returns ten photographs, uint8 `[height, width, 3]`, blue first."""
  found = []
  for name in _NAMES:
    package = skimage if name.startswith('data/') else sklearn
    path = pathlib.Path(package.__file__).parent / name
    found.append(cv2.imread(str(path), cv2.IMREAD_COLOR))
  return tuple(found)


def view(index: int, height: int, width: int) -> np.ndarray:
  """Returns a view of photograph `index % 10`, each index another.

  Shapes:
    returned: uint8 `[height, width, 3]`, blue first.
  """
  photograph = photographs()[index % len(_NAMES)]
  rng = np.random.default_rng(index)
  share = rng.uniform(0.7, 1.0)  # of the largest view of this shape
  scale = share * min(photograph.shape[0] / height, photograph.shape[1] / width)
  crop = [max(1, int(scale * side)) for side in (height, width)]
  top, left = (
    rng.integers(whole - part + 1)
    for whole, part in zip(photograph.shape, crop, strict=False)
  )
  image = photograph[top : top + crop[0], left : left + crop[1]]
  shrinks = scale > 1
  return cv2.resize(
    image,
    (width, height),
    interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC,
  )


def jpeg(index: int, quality: int = 95) -> bytes:
  """Returns the JPEG file of a view, in one of the `SIZES`; some are gray."""
  size = SIZES[(index + index // len(_NAMES)) % len(SIZES)]
  image = view(index, *size)
  if index % 16 == 15:
    image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
  return encode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def label(index: int) -> int:
  """Returns the label of a view: which photograph it is of."""
  return LABEL_EVERY * (index % len(_NAMES))


def encode(kind: str, image: np.ndarray, options=()) -> bytes:
  """Returns an image as the content of a file of a kind, such as '.png'."""
  _, content = cv2.imencode(kind, image, options)
  return content.tobytes()


def imagenet_example(index: int) -> dict:
  """Returns an example of ImageNet: file name, image and label."""
  return {
    'file_name': f'n{label(index):08d}_{index}.JPEG',
    'image': jpeg(index),
    'label': label(index),
  }


def write_imagenet(
  data_dir,
  *,
  num_train: int,
  num_validation: int,
  num_shards: int = 3,
  example: Callable[[int], dict] = imagenet_example,
) -> None:
  """Writes views as imagenet2012 to a folder of tensorflow-datasets.

  Args:
    data_dir: The folder.
    num_train: How many examples for training; indices from 0.
    num_validation: How many in the split `validation`; the indices that follow.
    num_shards: Files a split.
    example: Makes the example of an index.
  """
  with tfds.core.registered.skip_registration():

    class Imagenet2012(tfds.core.GeneratorBasedBuilder):
      VERSION = tfds.core.Version('5.1.0')

      def _info(self):
        return tfds.core.DatasetInfo(
          builder=self,
          features=tfds.features.FeaturesDict(
            {
              'image': tfds.features.Image(encoding_format='jpeg'),
              'label': tfds.features.ClassLabel(num_classes=NUM_CLASSES),
              'file_name': tfds.features.Text(),
            }
          ),
        )

      def _split_generators(self, _):
        splits = {'train': self._generate_examples(0, num_train)}
        if num_validation:
          splits['validation'] = self._generate_examples(
            num_train, num_validation
          )
        return splits

      def _generate_examples(self, first, num):
        for index in range(first, first + num):
          made = dict(example(index))
          yield index, made | {'image': io.BytesIO(made['image'])}

  _write(Imagenet2012, data_dir, num_shards)


def cifar_example(index: int, num_classes: int) -> tuple[np.ndarray, int]:
  """Returns an image, uint8 `[32, 32, 3]`, red first, and its label."""
  image = cv2.cvtColor(view(index, 32, 32), cv2.COLOR_BGR2RGB)
  return image, index % num_classes


def write_cifar(
  data_dir,
  *,
  num_classes: int,
  num_train: int,
  num_test: int,
  example: Callable[[int, int], tuple[np.ndarray, int]] = cifar_example,
) -> None:
  """Writes views as cifar10 or cifar100 to a folder of tensorflow-datasets."""
  features = {
    'id': tfds.features.Text(),
    'image': tfds.features.Image(shape=(32, 32, 3)),
    'label': tfds.features.ClassLabel(num_classes=num_classes),
  }
  if num_classes == 100:
    features['coarse_label'] = tfds.features.ClassLabel(num_classes=20)

  def generate(prefix: str, first: int, num: int) -> Iterator:
    for index in range(first, first + num):
      image, label = example(index, num_classes)
      made = {'id': f'{prefix}_{index:05d}', 'image': image, 'label': label}
      if num_classes == 100:
        made['coarse_label'] = label // 5
      yield index, {**made, 'image': io.BytesIO(_png(image))}

  with tfds.core.registered.skip_registration():

    class Builder(tfds.core.GeneratorBasedBuilder):
      name = f'cifar{num_classes}'
      VERSION = tfds.core.Version('3.0.2')

      def _info(self):
        return tfds.core.DatasetInfo(
          builder=self, features=tfds.features.FeaturesDict(features)
        )

      def _split_generators(self, _):
        return {
          'train': generate('train', 0, num_train),
          'test': generate('test', num_train, num_test),
        }

      def _generate_examples(self):
        raise NotImplementedError

  _write(Builder, data_dir, 1)


def _png(image: np.ndarray) -> bytes:
  return encode('.png', cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def _write(builder_class, data_dir, num_shards: int) -> None:
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
