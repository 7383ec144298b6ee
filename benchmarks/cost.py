"""Time of a training step and bytes of the networks of the sweeps of cost.

  python -m benchmarks.cost [--quick] [--only=perceptron|text] [--record=DIR]

Dense networks of several widths against compact Top-KAST networks of several
widths and densities: perceptrons on MNIST, which has the shapes of
Fashion-MNIST, and Transformer-XL on the King James text. Refreshes and host
work included, evaluation and compilation excluded. Bytes are those of
parameters, optimizer state and sets; compact storage also keeps all weights on
the host. The tables of cost read the record, whose cases are named as their
rows.
"""

from typing import Any
from typing import NamedTuple

import jax

from benchmarks import record
from benchmarks import storage
from experiments.sweep import points


class Sweep(NamedTuple):
  """A sweep to measure."""

  name: str
  config: str
  num_steps: int  # of a call; a multiple of the interval between refreshes
  base: str  # the case that ratios are to


SWEEPS = {
  'perceptron': Sweep(
    'cost', 'configs/fashion_cost.py:data=mnist', 100, 'dense, 300-100'
  ),
  'text': Sweep(
    'cost_text', 'configs/text_transformer_xl.py', 10, 'dense, 224'
  ),
}


def commands(sweep: Sweep) -> dict[str, tuple[str, list[str]]]:
  """Returns the config and the overrides of each case."""
  found = {}
  for point in points.collect(points.find(sweep.name, sweep.config)):
    config, *overrides = points.arguments(sweep.config, point)
    config = config.removeprefix('--config=')
    found[_label(points.load(config, overrides))] = config, overrides
  return found


def _label(config: Any) -> str:
  """Returns method, densities and width, as the tables of cost have them."""
  method, model = config.method, config.model
  parts = ['dense']
  if method.name == 'topkast':
    densities = method.forward_density, method.backward_density
    parts = ['Top-KAST', ' / '.join(f'{100 * x:g}%' for x in densities)]
  widths = model.hidden if 'hidden' in model else (model.d_model,)
  return ', '.join([*parts, '-'.join(map(str, widths))])


def num_bytes(config: str, overrides: list[str]) -> tuple[int, int]:
  """Returns the bytes of a run's state on the device, and on the host."""
  state = storage.make_task(config, overrides).stages[0].begin(0, None)
  return _size((state.params, state.opt_state)), _size(state.host_params)


def _size(tree: Any) -> int:
  return sum(x.nbytes for x in jax.tree.leaves(tree))


def main() -> None:
  only = {'choices': SWEEPS, 'help': 'one sweep'}
  given, figures = record.start('cost', __doc__, only=only)
  for key, sweep in SWEEPS.items():
    if given.only not in (None, key):
      continue
    functions = {}
    for name, (config, overrides) in commands(sweep).items():
      device, host = num_bytes(config, overrides)
      figures.add(name, 'bytes', device, 'bytes')
      figures.add(name, 'host', host, 'bytes')
      functions[name] = storage.make_steps(config, overrides, sweep.num_steps)
    figures.compare(
      functions, 2 if given.quick else 9, sweep.base, per=sweep.num_steps
    )
  figures.write(given.record)


if __name__ == '__main__':
  main()
