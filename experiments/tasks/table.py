"""Tasks by name, and the task of a config."""

from collections.abc import Mapping
import functools
import json
from typing import Any

from experiments import build
from experiments import mesh as mesh_lib
from experiments.tasks import base
from experiments.tasks import image
from experiments.tasks import language
from experiments.tasks.continual import task as continual

TASKS = {
  'continual_learning': continual.continual_learning,
  'image_classification': image.image_classification,
  'language_modelling': language.language_modelling,
}


def make_task(config: Mapping[str, Any]) -> base.Task:
  """Returns the task of a config of one network, without reading its data.

  Configs that differ in their seed alone share one task, and with it data and
  compiled code.
  """
  if 'seed' not in config:
    raise ValueError(f"config: missing key 'seed', got {sorted(config)}")
  seed = config['seed']
  if not isinstance(seed, int) or not 0 <= seed < 2**32:
    raise ValueError(f'config.seed: expected 0 to 2^32 - 1, got {seed!r}')
  apart = ('seed', 'init_from')  # see `experiments.initial`
  rest = {name: x for name, x in config.items() if name not in apart}
  devices = mesh_lib.all_devices()
  return _make_task(json.dumps(rest, sort_keys=True), devices)


@functools.lru_cache(maxsize=2)
def _make_task(config: str, devices: tuple[Any, ...]) -> base.Task:
  del devices  # in the key of the cache
  return build.build(TASKS, json.loads(config), key='experiment')
