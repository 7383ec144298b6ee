"""A dry run: sizes, and a step that lowers on every platform."""

import importlib.util
import re

import jax
import pytest

from experiments import dryrun
from experiments import flops
from experiments import topology
from tests.experiments import small


def number(lines, name):
  [line] = [line for line in lines if line.strip().startswith(name)]
  return int(re.search(r'[\d,]+', line)[0].replace(',', ''))


HAS_LIBTPU = importlib.util.find_spec('libtpu') is not None
SIZE = 784 * 16 + 160


@pytest.fixture(scope='module')
def lines():
  """The lines of a network, by storage."""
  return {
    storage: dryrun.dry_run(small.image(storage=storage))
    for storage in ('masked', 'compact')
  }


def test_it_tells_parameters_bytes_and_platforms(lines):
  found = lines['masked']
  assert found[0] == 'lenet on mnist, batch of 12 on 1 device(s)'
  assert number(found, 'parameters') == SIZE + 26
  assert number(found, 'a batch') == 12 * (784 + 1) * 4
  assert found[-3] == '  the training step lowers for cpu, cuda, tpu'
  expected = flops.totals(flops.report(small.image()))
  assert found[-2:] == [f'  {line}' for line in expected]


def test_compact_weights_are_counted_on_device_and_host(lines):
  found = lines['compact']
  # Values, momentum and one index of B; two indices of A: half of B.
  expected = 16 * round(0.4 * SIZE)
  assert number(found, 'state') == pytest.approx(expected, rel=0.1)
  assert number(found, 'on the host') == 4 * SIZE
  # Parameters, momentum, and a boolean of A and of B for each.
  assert number(lines['masked'], 'state') == pytest.approx(10 * SIZE, rel=0.1)
  assert not any('on the host' in line for line in lines['masked'])


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('v9:2x2', 'expected GENERATION:SHAPE, of v4, v5e,.* such as v5e:1x1'),
    ('v5e', "got 'v5e'"),
    ('v5e:3x3', "got 'v5e:3x3': INVALID_ARGUMENT"),
  ],
)
def test_an_unknown_topology_names_known_ones(name, message):
  if name == 'v5e:3x3':
    pytest.importorskip('libtpu')
  with pytest.raises(ValueError, match=message):
    dryrun.dry_run(small.image(), name)


@pytest.mark.skipif(HAS_LIBTPU, reason='libtpu is installed')
def test_a_missing_libtpu_is_one_message():
  with pytest.raises(ValueError, match=r'expected libtpu.*pip install .jax'):
    dryrun.dry_run(small.image(), 'v5e:2x2')


@pytest.fixture
def stand_in(monkeypatch):
  """CPU devices in place of those of a topology."""
  monkeypatch.setattr(
    topology, 'devices', lambda name: tuple(jax.devices()[:4])
  )


def test_a_step_is_compiled_for_all_devices_of_a_topology(stand_in):
  found = dryrun.dry_run(small.image(), 'v5e:2x2')
  assert found[0].endswith('batch of 12 on 4 device(s)')
  assert '  compiled for v5e:2x2, 4 device(s); each:' in found
  assert found[-1] == '  fits in the 16 GiB of a v5e chip'
  usage = topology.compile_step(topology.make_task(small.image(), 'v5e:2x2'))
  # Parameters, momentum and masks, and a quarter of the batch; no second copy.
  expected = 10 * SIZE + 3 * (784 + 1) * 4
  assert usage.arguments == pytest.approx(expected, rel=0.1)
  assert usage.output < 1_000
  with pytest.raises(ValueError, match='batch_size as a multiple of 4'):
    dryrun.dry_run(small.image(train={'batch_size': 10}), 'v5e:2x2')


def test_a_step_that_does_not_fit_says_what_to_change(stand_in, monkeypatch):
  def refuse(self):
    raise jax.errors.JaxRuntimeError(
      'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required '
      'for HLO temporaries (84.50G) exceeds available HBM (15.75G).'
    )

  monkeypatch.setattr(jax.stages.Lowered, 'compile', refuse)
  found = dryrun.dry_run(small.image(train={'batch_size': 16}), 'v5e:2x2')
  assert 'peak 84.500 GiB' in ' '.join(found[-3].split())
  assert found[-2] == '  does not fit in the 16 GiB of a v5e chip'
  assert '--config.train.num_micro=2' in found[-1]
  assert '--config.train.shard_params=True' in found[-1]
