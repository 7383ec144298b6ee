"""Classes of image data sets as tasks, from the bytes on."""

import io

import cv2
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from configs import cifar_tasks
from experiments.common import build
from experiments.common import loop
from experiments.common import run as run_lib
from experiments.continual import learner as learner_lib
from experiments.continual import plan as plan_lib
from experiments.continual import units as units_lib
from experiments.data import cifar
from experiments.data import image_tasks
from experiments.data import tasks
from tests import photographs

OPTIONS = {'num_validation': 110, 'pad': 4, 'flip': True}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """CIFAR-10 with 150 and CIFAR-100 with 250 examples for training."""
  folder = tmp_path_factory.mktemp('data')
  photographs.write_cifar(folder, num_classes=10, num_train=150, num_test=20)
  photographs.write_cifar(folder, num_classes=100, num_train=250, num_test=100)
  return str(folder)


def cifar_stream(data_dir, num_tasks=6):
  return image_tasks.cifar_tasks(
    num_tasks=num_tasks, data_dir=data_dir, **OPTIONS
  )


def test_cifar_10_comes_first_then_tens_of_cifar_100(data_dir):
  stream = cifar_stream(data_dir)
  read = tasks.read(stream)
  assert stream.num_classes == 10
  ten = cifar.cifar10(data_dir=data_dir, **OPTIONS)
  hundred = cifar.cifar100(data_dir=data_dir, **OPTIONS)
  for number in range(6):
    found = tasks.arrays(read, number)
    assert found.augment is not None
    for name in tasks.SPLITS:
      base = getattr(hundred if number else ten, name)
      first = 10 * (number - 1) if number else 0
      own = (base.labels >= first) & (base.labels < first + 10)
      inputs, labels = getattr(found, name)
      np.testing.assert_array_equal(inputs, base.inputs[own])
      np.testing.assert_array_equal(labels, base.labels[own] - first)


def test_one_task_of_cifar_is_cifar_10_alone(data_dir):
  read = tasks.read(cifar_stream(data_dir, 1))
  assert len(read.examples.train.labels) == 150 - 110
  assert set(read.rows[0]['train']) == set(range(40))


@pytest.mark.parametrize('channels', [1, 3])
def test_any_image_set_is_split_by_class(tmp_path, channels):
  write_images(tmp_path, channels)
  stream = image_tasks.split_images(
    data_set='squares',
    data_dir=str(tmp_path),
    image_shape=(8, 8, channels),
    num_classes=6,
    num_tasks=3,
    classes_per_task=2,
    seed=1,
    num_validation=12,
    pad=0,
    flip=False,
  )
  read = tasks.read(stream)
  inputs = read.examples.train.inputs
  assert inputs.shape == (24, 8, 8, channels)
  assert sorted(c for t in stream.tasks for c in t.classes) == list(range(6))
  for number, task in enumerate(stream.tasks):
    labels = read.examples.test.labels[read.rows[number]['test']]
    assert set(labels) == set(task.classes)
  # The value of every pixel was 40 times the label, before normalization.
  order = np.argsort(inputs[:, 0, 0, 0], kind='stable')
  assert np.all(np.diff(read.examples.train.labels[order]) >= 0)


def write_images(data_dir, channels):
  """Writes 36 and 12 even squares of six classes."""

  def generate(first, num):
    for i in range(first, first + num):
      square = np.full((8, 8, channels), 40 * (i % 6), np.uint8)
      content = cv2.imencode('.png', square)[1].tobytes()
      yield i, {'image': io.BytesIO(content), 'label': i % 6}

  with tfds.core.registered.skip_registration():

    class Squares(tfds.core.GeneratorBasedBuilder):
      name = 'squares'
      VERSION = tfds.core.Version('1.0.0')

      def _info(self):
        features = {
          'image': tfds.features.Image(shape=(8, 8, channels)),
          'label': tfds.features.ClassLabel(num_classes=6),
        }
        return tfds.core.DatasetInfo(
          builder=self, features=tfds.features.FeaturesDict(features)
        )

      def _split_generators(self, _):
        return {'train': generate(0, 36), 'test': generate(36, 12)}

      def _generate_examples(self):
        raise NotImplementedError

  builder = Squares(data_dir=str(data_dir), file_format='array_record')
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(num_shards=1)
  )


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'num_tasks': 4}, 'at most 3 tasks of 2 classes'),
    ({'image_shape': (8, 8)}, 'height, width and 1 or 3 channels'),
    ({'image_shape': (8, 8, 2)}, 'height, width and 1 or 3 channels'),
  ],
)
def test_splits_that_cannot_be_are_refused(changes, message):
  options = {
    'data_set': 'squares', 'data_dir': None, 'image_shape': (8, 8, 1),
    'num_classes': 6, 'num_tasks': 3, 'classes_per_task': 2, 'seed': None,
    'num_validation': 1, 'pad': 0, 'flip': False,
  }  # fmt: skip
  with pytest.raises(ValueError, match=message):
    image_tasks.split_images(**{**options, **changes})


def test_more_tasks_than_cifar_has_are_refused():
  with pytest.raises(ValueError, match=r'from 1 to 11, .* got 12'):
    cifar_stream(None, 12)


def test_data_that_are_not_given_are_asked_for():
  with pytest.raises(ValueError, match=r'config\.tasks\.data_dir=DIR'):
    tasks.read(cifar_stream(None))


@pytest.mark.slow
def test_a_residual_network_forgets_nothing_of_cifar(data_dir, tmp_path):
  """The config, but for two tasks and few steps."""
  config = cifar_tasks.get_config('alpha=2,num_steps=2').to_dict()
  config.pop('experiment')
  config['seeds'] = (0,)
  config['tasks'].update(data_dir=data_dir, num_tasks=2, num_validation=20)
  config['train'].update(batch_size=2, eval_batch_size=10)
  config['strategy'].update(densities=(0.3, 0.1), gamma=0.0)
  plan = build.call(plan_lib.make_plan, config)
  [settings] = plan.settings
  member = units_lib.Member(
    learner_lib.make_learner(tasks.read(settings.stream), settings),
    settings,
    plan.testing,
    0,
  )
  units = units_lib.make_units(member, plan.num_steps)
  outcome = loop.run(
    units, plan.schedule, run_lib.open_run(tmp_path / 'run', {}), keep=1
  )
  assert outcome.status == 'done'  # and so nothing was forgotten
  state = units[0].init(None)
  state, _ = units[0].train(state, 0, 2)
  state, _ = units[0].finish(state)
  before = jax.device_get(state)
  state, _ = units[1].train(units[1].init(state), 0, 2)
  owner = before.memory.pack.owner
  changed = 0
  for path, own in owner.items():
    module, name = path.rsplit('/', 1)
    old = before.train.params[module][name]
    new = np.asarray(state.train.params[module][name])
    np.testing.assert_array_equal(old[own == 1], new[own == 1])
    changed += np.sum(old != new)
  assert changed > 0.5 * sum(own.size for own in owner.values())
