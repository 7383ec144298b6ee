"""The table of memory; at night with the compiler of TPUs."""

import pytest

from benchmarks import memory

CELL = ('enwik8_large', 'Top-KAST 10/20%', 'masked')
CELL_KEYS = memory.KEYS[:3]


def test_rows_end_at_the_first_topology_that_fits_and_are_kept(
  tmp_path, monkeypatch
):
  compiled = []

  def measure(config, topology):
    compiled.append(topology)
    assert config['method']['forward_density'] == 0.1
    fits = len(compiled) > 1
    sizes = {'state': 1.0, 'peak': 3.5, 'arguments': 2.0 if fits else None}
    return sizes | {
      'chips': len(compiled), 'batch': 64, 'parameters': 277_000_000,
      'flops': 1e12, 'cpu_s': 99, 'fits': fits, 'jax': '0.10.2',
    }  # fmt: skip

  monkeypatch.setattr(memory, 'FILE', tmp_path / 'memory.csv')
  monkeypatch.setattr(memory, 'measure', measure)
  for more in (False, False, True):
    memory.fill(CELL, more)
  assert compiled == ['v5e:1x1', 'v5e:1x2', 'v5e:2x2']
  lines = memory.render(memory.read()).splitlines()
  cells = [[x.strip() for x in line.split('|')[1:-1]] for line in lines[-3:]]
  assert [row[3] for row in cells] == compiled
  assert [row[-2:] for row in cells] == [
    ['99', 'no'], ['99', 'yes'], ['99', 'yes'],
  ]  # fmt: skip
  assert [row[7] for row in cells] == ['', '2.000', '2.000']
  assert cells[0][5:7] == ['277.0M', '1.000']


def rows(*configs):
  """Returns the rows of configs, each on the topology that it fits."""
  frame = memory.read()
  found = frame[frame.config.isin(configs) & frame.fits]
  return [
    pytest.param(row, id=' '.join(row[memory.KEYS]))
    for _, row in found.iterrows()
  ]


@pytest.mark.nightly
@pytest.mark.parametrize('row', rows('imagenet_resnet50', 'enwik8_base'))
def test_the_table_is_what_the_compiler_says(row):
  pytest.importorskip('libtpu')
  found = memory.measure(memory.make_config(*row[CELL_KEYS]), row.topology)
  for name in ('fits', 'parameters', *memory.SIZES):
    assert found[name] == pytest.approx(row[name], rel=0.02), name


@pytest.mark.nightly
@pytest.mark.parametrize('row', rows('wikitext103_large'))
def test_some_layers_tell_the_size_of_all(row):
  pytest.importorskip('libtpu')
  config = memory.make_config(*row[CELL_KEYS])
  num_layers = config['model']['num_layers']
  first, third = (
    memory.measure(
      {**config, 'model': {**config['model'], 'num_layers': n}}, row.topology
    )
    for n in (1, 3)
  )
  for name, rel in (('state', 0.001), ('arguments', 0.02), ('peak', 0.15)):
    layer = (third[name] - first[name]) / 2
    found = first[name] + layer * (num_layers - 1)
    assert found == pytest.approx(row[name], rel=rel), name
