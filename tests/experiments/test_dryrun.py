"""A dry run: sizes, and a step that lowers on every platform."""

import re

import pytest

from experiments import dryrun
from experiments import flops
from tests.experiments import small


def number(lines, name):
  [line] = [line for line in lines if line.strip().startswith(name)]
  return int(re.search(r'[\d,]+', line)[0].replace(',', ''))


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
