"""Strictness for every test: what is careless raises."""

import os
import pathlib

REPOSITORY = pathlib.Path(__file__).parent.parent

# Before JAX starts: several CPU devices, so that sharded code really runs, and
# little optimization, because most of the programs run for a moment.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = (
  '--xla_backend_optimization_level=0 '
  + os.environ.get('XLA_FLAGS', '')
  + ' --xla_force_host_platform_device_count=4'
)
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR', str(REPOSITORY / '.cache/jax')
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')

from absl import logging  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.devices()  # four, before a test's launch asks for fewer


@pytest.fixture(autouse=True)
def verbosity():
  """The log level of absl, which the commands under test change."""
  before = logging.get_verbosity()
  yield
  logging.set_verbosity(before)


@pytest.fixture(scope='session')
def imagenet_dir(tmp_path_factory):
  """A folder of tensorflow-datasets with a small imagenet2012."""
  from tests import photographs  # slow to import, and few tests need it

  folder = tmp_path_factory.mktemp('imagenet')
  photographs.write_imagenet(folder, num_train=40, num_validation=21)
  return str(folder)


@pytest.fixture(scope='session')
def damaged_dir(tmp_path_factory):
  """ImageNet; of 12 training images two are truncated, of 6 test images one."""
  from tests import photographs

  folder = tmp_path_factory.mktemp('damaged')
  photographs.write_imagenet(
    folder,
    num_train=12,
    num_validation=6,
    example=lambda i: photographs.imagenet_example(i, damaged={3, 7, 14}),
  )
  return folder


@pytest.fixture(scope='session')
def cifar_dir(tmp_path_factory):
  """A folder of tensorflow-datasets with a small cifar10 and cifar100."""
  from tests import photographs

  folder = tmp_path_factory.mktemp('cifar')
  for num_classes in (10, 100):
    photographs.write_cifar(
      folder, num_classes=num_classes, num_train=250, num_test=100
    )
  return str(folder)
