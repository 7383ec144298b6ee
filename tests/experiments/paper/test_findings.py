"""Claims against made-up cells, and costs at equal accuracy."""

import pathlib

from matplotlib import pyplot as plt
import numpy as np
import pandas as pd
import pytest

from experiments.paper import against
from experiments.paper import claims
from experiments.paper import fill
from experiments.paper import findings
from experiments.paper import fronts
from experiments.paper import lines
from experiments.paper import results
from experiments.paper import table as table_lib
from experiments.paper import tables


def cells_of(name, values):
  """Returns cells of a table: (mean, deviation) by the labels in `values`.

  Three seeds, one if the deviation is None.
  """
  table, rows = tables.TABLES[name], []
  for cell in table_lib.cells(table).to_dict('records'):
    labels = tuple(cell[key] for key in [*table.headings, 'column'])
    if labels in values:
      mean, deviation = values[labels]
      offsets = (0,) if deviation is None else (-1, 0, 1)
      for seed, offset in enumerate(offsets):
        row = {key: cell[key] for key in [*table.headings, 'column', 'metric']}
        row |= {'seed': seed, 'value': mean + offset * (deviation or 0)}
        rows.append(row | {'status': 'done', 'message': ''})
  frame = pd.DataFrame(rows).reindex(columns=[*rows[0], *fill.flops.COSTS])
  return fill.summarize(table, frame.assign(seconds=1.0))


def methods(**values):
  """Returns cells of plain methods at 5%."""
  values = {(k, 'plain', '5%'): value for k, value in values.items()}
  return cells_of('mnist_methods', values)


@pytest.mark.parametrize(
  ('static', 'by', 'verdict'),
  [
    ((0.90, 0.001), 0.0, findings.YES),
    ((0.90, 0.001), 0.05, findings.YES),
    ((0.90, 0.001), 0.06, findings.NO),
    ((0.949, 0.02), 0.0, findings.OPEN),
    ((0.90, None), 0.0, findings.OPEN),
    ((0.96, 0.001), 0.0, findings.NO),
    ((0.96, 0.001), -0.02, findings.YES),
  ],
)
def test_one_cell_is_ahead_of_another(static, by, verdict):
  cells = methods(rigl=(0.95, 0.001), static=static, set=(0.5, 0.1))
  check = findings.ahead(
    {'method': ('rigl', 'set')}, {'method': 'static'}, by, column='5%'
  )
  found, figures = check(cells)
  assert found == verdict
  assert figures.startswith('rigl 95.00 ± 0.10 against static 9')
  with pytest.raises(LookupError):
    check(methods(rigl=(0.95, 0.001)))


def test_less_is_better_in_bits():
  values = {
    ('Top-KAST', '20% / 40%', 'bits per character'): (2.1, 0.01),
    ('static', '20%', 'bits per character'): (2.2, 0.01),
  }
  check = findings.ahead({'method': 'Top-KAST'}, {'method': 'static'})
  assert check(cells_of('text', values))[0] == findings.YES


def test_an_order_may_be_off_by_a_deviation_of_at_most_a_point():
  order = findings.in_order('method', ('gradual', 'rigl', 'static'), {})
  best = {'gradual': (0.97, 0.001), 'rigl': (0.95, 0.004)}
  assert order(methods(**best, static=(0.953, 0.0)))[0] == findings.YES
  assert order(methods(**best, static=(0.96, 0.3)))[0] == findings.YES
  assert order(methods(**best, static=(0.961, 0.3)))[0] == findings.PARTLY
  worst = methods(gradual=(0.5, 0.0), rigl=(0.6, 0.0), static=(0.7, 0.0))
  assert order(worst)[0] == findings.NO


def test_steady_methods_neither_fail_nor_scatter():
  check = findings.steady(['5%'])
  assert check(methods(rigl=(0.95, 0.009)))[0] == findings.YES
  for value in ((0.1135, 0.0), (0.95, 0.02)):
    verdict, figures = check(methods(rigl=(0.95, 0.001), set=value))
    assert verdict == findings.NO
    assert '1 of 2 cells; not set plain 5%' in figures


def test_costs_are_compared_at_equal_accuracy():
  curves = pd.DataFrame(
    [('a', 1.0, 10.0), ('a', 2.0, 20.0), ('b', 1.0, 5.0), ('b', 3.0, 25.0),
     ('c', 1.5, 8.0), ('c', 1.6, 7.0), ('d', 5.0, 0.0)],
    columns=['line', 'mean', 'x'],
  )  # fmt: skip
  found = fronts.cheapest(curves, 'x', 'a', 0.1)
  # At 2 only b remains: half way between 5 and 25.
  assert found[['accuracy', 'base', 'line', 'cost']].to_numpy().tolist() == [
    [1.0, 10.0, 'b', 5.0], [2.0, 20.0, 'b', 15.0],
  ]  # fmt: skip
  assert found.share.tolist() == [0.5, 0.75]
  # The end of c is within the tolerance of 1.65; 7 weights do for 1.5, too.
  base = pd.DataFrame({'line': 'a', 'mean': [1.5, 1.65], 'x': [10.0, 12.0]})
  found = fronts.cheapest(pd.concat([base, curves[4:6]]), 'x', 'a', 0.1)
  assert found.cost.tolist() == [7.0, 7.0]


def test_weights_owned_decide_on_packing():
  values = {}
  for i, gamma in enumerate(('0.95', '0.97', '0.98')):
    for alpha, owned in (('alpha 1', 0.5), ('alpha 2', 0.3)):
      place = 'a mask per layer', alpha, gamma
      values[*place, 'accuracy'] = 0.9 + 0.01 * i, 0.001
      values[*place, 'weights owned'] = owned + 0.1 * i, 0.01
  cells = cells_of('permuted_packing', values)
  found = fronts.at_equal_accuracy(cells)
  assert found.share.tolist() == pytest.approx([3 / 5, 4 / 6, 5 / 7])
  assert set(found.masks) == {'a mask per layer'}
  for share, verdict in (
    (0.8, findings.YES), (0.7, findings.PARTLY), (0.5, findings.NO),
  ):  # fmt: skip
    check = findings.owns_less('a mask per layer', share)
    assert check(cells)[0] == verdict


def test_every_claim_names_cells_of_its_table():
  known = {claim.name for claim in claims.CLAIMS}
  assert len(known) == len(claims.CLAIMS) > 30
  for claim in claims.CLAIMS:
    cells = table_lib.cells(tables.TABLES[claim.table]).assign(
      status='done', mean=0.9, deviation=0.001, num=3,
      step_seconds=1.0, step_bytes=1.0,
    )  # fmt: skip
    verdict, figures = claim.check(cells)
    assert verdict
    assert figures, claim.name


def test_a_page_is_filled_with_findings(tmp_path):
  text = 'a\n- old text <!-- mnist_methods_above -->\n\nb'
  name = 'mnist_methods_long'
  cells = {name: cells_of(name, {('gradual', 'plain', '5%'): (0.985, 0.001)})}
  filled = against.fill(text, cells, tmp_path)
  assert filled.startswith('a\n- MNIST, LeNet-5: above')
  figures = 'gradual plain 5% 98.50 ± 0.10'
  name = 'mnist_methods_above'
  assert filled.endswith(f'. *reproduced*: {figures}. <!-- {name} -->\n\nb')
  assert against.fill(filled, cells, tmp_path) == filled
  assert '*not tested*' in against.fill(text, {}, tmp_path)
  with pytest.raises(ValueError, match=r"a claim, got 'ram'.*'random'"):
    against.fill('- <!-- ram -->', {}, tmp_path)


def test_a_claim_that_fails_names_the_tries(tmp_path):
  (tmp_path / 'tuning').mkdir()
  (tmp_path / 'tuning/tune_methods.csv').write_text('seed\n0\n1\n')
  [claim] = [x for x in claims.CLAIMS if x.name == 'mnist_methods_above']
  name = claim.table
  cells = {name: cells_of(name, {('gradual', 'plain', '5%'): (0.9, 0.001)})}
  verdict, figures = against.finding(claim, cells, tmp_path)
  assert verdict == findings.NO
  assert 'tried: 2 runs' in figures


@pytest.mark.parametrize(
  ('metric', 'means', 'low', 'high', 'scale'),
  [
    ('accuracy', [98.5, 98.0, 97.6, 11.35], (97, 97.6), (98.5, 99), 'linear'),
    ('accuracy', [99.0, 98.0, 80.0, 11.35], (75, 80), (99, 99.5), 'function'),
    ('loss', [2.0, 2.2, 5.0], (1.9, 2.0), (2.2, 2.3), 'linear'),
  ],
)
def test_axes_begin_at_the_lowest_useful_value(metric, means, low, high, scale):
  figure, axis = plt.subplots()
  axis.plot(means)
  lines.focus([axis], pd.DataFrame({'mean': means}), metric)
  limits = axis.get_ylim()
  assert low[0] <= limits[0] < low[1]
  assert high[0] < limits[1] <= high[1]
  assert axis.get_yscale() == scale
  ticks = [tick for tick in axis.get_yticks() if low[0] <= tick <= high[1]]
  assert len(ticks) >= 3
  assert np.all(np.isfinite(axis.transData.transform([(0, x) for x in means])))
  plt.close(figure)


@pytest.mark.parametrize('high', [1.6, 20.0, 3e3])
def test_a_logarithmic_axis_has_numbers_whatever_its_length(high):
  figure, axis = plt.subplots()
  axis.plot([0.65, high])
  lines.log_y([axis])
  low, top = axis.get_ylim()
  figure.canvas.draw()
  shown = [tick for tick in axis.get_yticks() if low <= tick <= top]
  assert 3 <= len(shown) <= 12
  plt.close(figure)


def test_choices_are_drawn_beside_their_references():
  name = 'fashion_patterns'
  means = {
    ('20% / 40%', 'single entries'): 0.89, ('20% / 40%', '16 x 16'): 0.88,
    ('10% / 20%', 'single entries'): 0.87, ('10% / 20%', '128 x 128'): 0.58,
  }  # fmt: skip
  values = {(*k, 'alpha 1'): (mean, 0.001) for k, mean in means.items()}
  figure = fronts.draw_choices(tables.TABLES[name], cells_of(name, values))
  [axis] = figure.axes  # the other column has no networks
  low, high = axis.get_xlim()
  assert 80 < low < 87 < 89 < high < 95  # 58% is off the scale
  bands = [np.ptp(x.get_paths()[0].vertices, 0) for x in axis.collections]
  wide = [band for band in bands if band[1] == 7]  # over the rows of a density
  assert [band[0] for band in wide] == pytest.approx([0.2, 0.2])
  plt.close(figure)


def test_the_guide_is_that_of_the_stored_files():
  directory = pathlib.Path(claims.__file__).parents[2] / 'docs/results'
  text = directory.with_name('training.md').read_text()
  assert results.guide(text, directory) == text
