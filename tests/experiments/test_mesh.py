"""Parameters, sets and optimizer state divided among devices."""

import json
import re

import jax
import numpy as np
import pytest

from experiments import initial
from experiments import mesh as mesh_lib
from experiments import multihost
from experiments import rundir
from tests import killing
from tests import oracles
from tests.experiments import small

CONFIG = small.image(
  model={'hidden': (32, 24)},
  prune={'output_layer': 'linear_2/w'},
  train={'num_devices': 4, 'shard_params': True},
)


def losses(run):
  return [row['loss'] for row in run.rows if 'loss' in row]


@pytest.mark.parametrize(
  ('shape', 'axis'),
  [((784, 32), 0), ((6, 8, 16), 2), ((7, 8), 1), ((7,), None), ((), None)],
)
def test_an_array_is_divided_along_its_largest_divisible_axis(shape, axis):
  sharding = mesh_lib.divide(mesh_lib.make_mesh(4), shape)
  expected = tuple(
    size // 4 if place == axis else size for place, size in enumerate(shape)
  )
  assert sharding.shard_shape(shape) == expected


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """The run with divided parameters, and the one with replicated ones."""
  return [
    small.train(config, tmp_path_factory.mktemp('run'))
    for config in (
      CONFIG,
      small.update(CONFIG, {'train': {'shard_params': False}}),
    )
  ]


def test_divided_parameters_train_as_replicated_ones(runs):
  run, expected = runs
  oracles.assert_close(run.state, expected.state, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(losses(run), losses(expected), rtol=1e-4)


def test_a_device_holds_a_quarter_of_what_divides(runs):
  run, expected = runs

  def num_bytes(state):
    leaves = jax.tree.leaves((state.params, state.opt_state))
    return sum(x.addressable_shards[0].data.nbytes for x in leaves)

  share = num_bytes(run.state) / num_bytes(expected.state)
  assert 0.25 < share < 0.27


def test_the_search_of_masks_gathers_no_weight():
  task = initial.make_task(CONFIG)
  tx, _ = task.objective.method.make(0)
  state = task.state
  text = (
    jax.jit(tx.update)
    .lower(state.params, state.opt_state, state.params)
    .compile()
    .as_text()
  )
  moved = re.findall(r'= \(?\w+\[([\d,]*)\]\S* all-(?:gather|to-all)\(', text)
  sizes = [np.prod([int(n) for n in x.split(',') if n]) for x in moved]
  assert 'all-reduce' in text
  smallest = 24 * 10
  assert max(sizes, default=0) < smallest  # samples of layers, see `drift`


def test_compact_storage_is_refused():
  config = small.update(CONFIG, {'method': {'storage': 'compact'}})
  with pytest.raises(ValueError, match=r"shard_params: .*storage 'compact'"):
    initial.make_task(config)


def train_in_process(place, folder, config):
  """Trains in one of some processes; the first prints its losses."""
  multihost.start(place and multihost.placement(None, **place))
  multihost.in_first(rundir.create, folder, config)
  run = small.train(config, folder)
  if multihost.is_first():
    print(losses(run))
    [weight] = [
      x for x in jax.tree.leaves(run.state.params) if x.shape == (784, 32)
    ]
    print(weight.addressable_shards[0].data.shape)


def test_two_processes_with_divided_parameters_equal_one(tmp_path):
  found = {}
  with killing.server(tmp_path / 'cache'):
    for name, num in (('one', 1), ('two', 2)):
      config = small.update(CONFIG, {'train': {'num_devices': num}})
      places = killing.placements(num) if num > 1 else [None]
      arguments = tmp_path / name, config
      started = [
        killing.call(train_in_process, place, *arguments) for place in places
      ]
      ended = [killing.finish(one) for one in started]
      assert not any(one.code for one in ended), ended
      found[name] = ended[0].output.splitlines()[-2:]
  (one, whole), (two, half) = found.values()
  np.testing.assert_allclose(json.loads(two), json.loads(one), rtol=1e-4)
  assert (whole, half) == ('(784, 32)', '(392, 32)')
