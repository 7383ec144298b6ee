"""Which runs of a sweep can be trained side by side."""

from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import json
from typing import Any

from experiments.common import build
from experiments.data import table as data_table

# In these, runs of a pack may differ.
FREE = (
  'seeds', 'powerprop.alphas', 'optimizer.learning_rate',
  'optimizer.weight_decay', 'method.penalty',
)  # fmt: skip


def group(
  configs: Mapping[str, dict[str, Any]], size: int
) -> list[tuple[str, ...]]:
  """Returns the names of runs in groups of at most `size`, in their order.

  Runs of a group are image classifications on one device, of data that lie on
  it and in masked storage, that differ in nothing but `FREE`. All others are
  alone.

  Args:
    configs: of the runs, by name.
    size: at most as many runs in a group.
  """
  groups: dict[str, list[list[str]]] = {}
  for name, config in configs.items():
    content = name if not is_packable(config) else _fixed(config)
    found = groups.setdefault(content, [[]])
    if len(found[-1]) == size:
      found.append([])
    found[-1].append(name)
  return [tuple(names) for found in groups.values() for names in found]


def is_packable(config: dict[str, Any]) -> bool:
  """Returns whether runs like this one can be trained side by side."""
  if config['experiment'] != 'image_classification':
    return False
  if config['method'].get('storage', 'masked') != 'masked':
    return False
  spec = build.build(data_table.SPECS, config['data'], name='config.data')
  return not spec.is_stream and config['train']['num_devices'] == 1


def id_of(names: Sequence[str]) -> str:
  """Returns a name for the folder of a pack, of all names in it."""
  content = '\n'.join(names)
  return f'pack-{hashlib.sha256(content.encode()).hexdigest()[:8]}'


def _fixed(config: dict[str, Any]) -> str:
  """Returns what runs of a pack have in common."""
  config = json.loads(json.dumps(config))
  for path in FREE:
    *sections, key = path.split('.')
    section = config
    for name in sections:
      section = section[name]
    section.pop(key, None)
  return json.dumps(config, sort_keys=True)
