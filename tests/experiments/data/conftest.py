"""Fixtures of the tests of the data sets."""

from absl import flags
import pytest


@pytest.fixture(autouse=True, scope='session')
def parsed_flags():
  """Parses absl's flags, as `absl.app` does: grain's workers read them."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['tests'])
