"""The small stream and network by name, as a config chooses them."""

import pytest

from experiments.models import table as model_table
from experiments.tasks.continual import task as task_lib
from tests.experiments.tasks.continual import small


@pytest.fixture(autouse=True, scope='session')
def small_tables():
  """Adds them to the tables."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(task_lib.TASKS, 'small', small.make_stream)
    patch.setitem(model_table.MODELS, 'small', small.network)
    yield
