"""The table of memory, without a compiler."""

from benchmarks import memory

CELL = ('enwik8_large', 'Top-KAST 10/20%', 'masked')


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
      'flops': 1e12, 'fits': fits, 'jax': '0.10.2',
    }  # fmt: skip

  monkeypatch.setattr(memory, 'FILE', tmp_path / 'memory.csv')
  monkeypatch.setattr(memory, 'measure', measure)
  for more in (False, False, True):
    memory.fill(CELL, more)
  assert compiled == ['v5e:1x1', 'v5e:1x2', 'v5e:2x2']
  lines = memory.render(memory.read()).splitlines()
  cells = [[x.strip() for x in line.split('|')[1:-1]] for line in lines[-3:]]
  assert [row[3] for row in cells] == compiled
  assert [row[-1] for row in cells] == ['no', 'yes', 'yes']
  assert [row[7] for row in cells] == ['', '2.000', '2.000']
  assert cells[0][5:7] == ['277.0M', '1.000']
