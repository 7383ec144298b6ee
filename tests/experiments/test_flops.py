"""The report on costs: every method, by hand, and the command."""

import json
import math

import pytest

from experiments import flops
from experiments import methods
from tests.experiments import small

NUM_STEPS, WIDTH = 3200, 20
A, B = 784 * WIDTH, WIDTH * 10  # entries
DENSE = 2 * (A + B)  # FLOPs
SPARSE = 0.25 * DENSE


def make_config(name, **changes):
  section = {**small.method(name, refresh_every=100), 'dense': ()}
  if name == 'topkast':
    section.update(forward_density=0.25, backward_density=0.5)
  elif name != 'dense':
    section['density'] = 0.25
  if name == 'dense':
    del section['dense']
  if name == 'magnitude':
    section['at'] = 1600
  if name == 'gradual':
    section.update(start=1000, end=2500)
  if name == 'acdc':
    section.update(start=320, end=2720, phase_steps=160)
  return small.image(
    method={**section, **changes},
    model={'hidden': (WIDTH,)},
    train={'num_steps': NUM_STEPS, 'batch_size': 10},
  ) | {'method': {**section, **changes}}


# Mean of a training step.
TRAINING = {
  'dense': 3 * DENSE,
  'static': 3 * SPARSE,
  'set': 3 * SPARSE,
  'rigl': (300 * SPARSE + 2 * SPARSE + DENSE) / 101,
  'topkast': 2 * SPARSE + 0.5 * DENSE,
  'snip': 3 * SPARSE + 3 * DENSE / NUM_STEPS,
  'magnitude': 0.5 * 3 * DENSE + 0.5 * 3 * SPARSE,
  'gradual': None,
  # Dense for 320 steps, six times 160 and 320.
  'acdc': 0.5 * 3 * DENSE + 0.5 * 3 * SPARSE,
}


def gradual():
  """Returns the mean FLOPs of a step by a sum over all steps."""
  density, total = 1.0, 0.0
  for step in range(NUM_STEPS):
    if 1000 < step <= 2500 and step % 100 == 0:
      density = 0.25 + 0.75 * (1 - (step - 1000) / 1500) ** 3
    total += 3 * density * DENSE
  return total / NUM_STEPS


@pytest.mark.parametrize('name', methods.METHODS)
def test_every_method_costs_what_its_formula_says(name):
  found = flops.report(make_config(name))
  expected = TRAINING[name] or gradual()
  assert math.isclose(found.sparse_train_flops, expected, rel_tol=1e-5)
  assert math.isclose(found.train_share, found.sparse_train_flops / (3 * DENSE))
  assert math.isclose(
    found.total_train_flops, found.sparse_train_flops * NUM_STEPS * 10
  )
  assert found.inference_share == (1.0 if name == 'dense' else 0.25)
  assert (found.flops, found.train_flops) == (DENSE, 3 * DENSE)


def test_bytes_and_entries_are_of_all_parameters():
  found = flops.report(make_config('static'))
  biases = WIDTH + 10
  assert found.entries == A + B + biases
  assert found.active_entries == (A + B) // 4 + biases
  assert found.num_bytes == 4 * (A + B + biases)
  # Values, and a bit for each entry of a sparse layer.
  assert found.sparse_bytes == A + B + (A + B) // 8 + 4 * biases
  rows = {row.path: row for row in found.rows.itertuples()}
  assert (rows['linear_0/b'].active, rows['linear_0/b'].flops) == (WIDTH, 0)
  assert rows['linear_1/w'].shape == (WIDTH, 10)
  dense = flops.report(make_config('set', exclude=('linear_1/w',)))
  assert dense.active_entries == A // 4 + B + biases


def test_attention_products_are_counted_apart():
  found = flops.report(small.language('/nowhere', 'static'))
  keys, heads = 5 + 6, 2 * 3
  # Queries with keys, queries with positions, and shares with values.
  assert found.other_flops == 3 * 2 * 5 * keys * heads
  [row] = [
    row
    for row in found.rows.itertuples()
    if row.path == 'transformer_xl/layer_0/attention/key/w'
  ]
  assert row.flops == 2 * keys * 8 * heads
  assert row.active / row.entries == pytest.approx(0.2, abs=0.02)


@pytest.fixture(scope='module')
def flag(tmp_path_factory):
  """The flag of a config file of several networks."""
  config = make_config('topkast')
  config['seeds'] = [config.pop('seed')]
  config['powerprop'] = {'alphas': [2.0, 3.0], 'optimizer_in': 'theta'}
  return small.config_flag(tmp_path_factory.mktemp('config'), config)


def test_the_command_prints_a_row_a_layer_or_json(flag, capsys):
  assert flops.main([flag]) == 0
  printed = capsys.readouterr().out
  found = flops.report(make_config('topkast'))
  for row in found.rows.itertuples():
    assert (row.path in printed) == (row.flops > 0)
    assert not row.flops or f'{row.flops:,}' in printed
  assert '(in no product)' in printed
  assert f'{found.train_share:.4f} of dense' in printed
  change = '--config.method.forward_density=0.1'
  assert flops.main([flag, '--json', change]) == 0
  found = json.loads(capsys.readouterr().out)
  assert found['entries'] == sum(row['entries'] for row in found['rows'])
  assert found['inference_share'] == pytest.approx(0.1, rel=0.01)


def test_a_mistake_is_one_message(flag, capsys):
  change = '--config.method.forward_density=2.0'
  assert flops.main([flag, change]) == flops.USER_ERROR
  error = capsys.readouterr().err
  assert error.startswith('experiments.flops: ')
  assert 'forward_density' in error
