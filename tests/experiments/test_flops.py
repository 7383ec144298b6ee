"""The report on costs: every method, by hand, and the command."""

import json
import math

import jax
import jax.numpy as jnp
import pytest

from configs import methods as sections
from configs import mnist_methods
from experiments import costs
from experiments import flops as command
from experiments.common import methods
import sparsity

A, B = 12, 20  # entries
PARAMS = {
  'a': {'w': jax.ShapeDtypeStruct((3, 4), jnp.float32)},
  'b': {
    'b': jax.ShapeDtypeStruct((5,), jnp.float32),
    'w': jax.ShapeDtypeStruct((4, 5), jnp.float32),
  },
}
DENSE = 2 * (A + B)  # FLOPs
NUM_STEPS = 3200


def make_subject(method, **changes):
  section = sections.section(
    method,
    density=0.25,
    backward_density=0.5,
    num_steps=NUM_STEPS,
    refresh_every=100,
  )
  return costs.Subject(
    lambda params, x: x @ params['a']['w'] @ params['b']['w'],
    PARAMS,
    (jax.ShapeDtypeStruct((1, 3), jnp.float32),),
    {**section, **changes},
    NUM_STEPS,
    batch_size=10,
  )


SPARSE = 0.25 * DENSE
# Of a training step, as a mean over the training.
TRAINING = {
  'dense': 3 * DENSE,
  'static': 3 * SPARSE,
  'set': 3 * SPARSE,
  'rigl': (300 * SPARSE + 2 * SPARSE + DENSE) / 101,
  'topkast': 2 * SPARSE + 0.5 * DENSE,
  'snip': 3 * SPARSE + 3 * DENSE / NUM_STEPS,
  'magnitude': 0.5 * 3 * DENSE + 0.5 * 3 * SPARSE,
}


@pytest.mark.parametrize('name', TRAINING)
def test_training_costs_what_the_formula_says(name):
  found = costs.report(make_subject(name))
  assert math.isclose(found.sparse_train_flops, TRAINING[name])
  assert math.isclose(found.train_share, TRAINING[name] / (3 * DENSE))
  assert math.isclose(found.total_train_flops, TRAINING[name] * NUM_STEPS * 10)


def test_gradual_pruning_costs_a_sum_over_its_steps():
  schedule = sparsity.cubic(0.25, start=1000, end=2500)
  is_due = sparsity.every_to(2500, 100, start=1000)
  steps = jnp.arange(NUM_STEPS)
  due, wanted = jax.device_get((is_due(steps), schedule(steps)))
  density, total = 1.0, 0.0
  for prunes, share in zip(due, wanted, strict=True):
    density = float(share) if prunes else density
    total += 3 * density * DENSE
  found = costs.report(make_subject('gradual'))
  assert math.isclose(found.sparse_train_flops, total / NUM_STEPS, rel_tol=1e-5)


@pytest.mark.parametrize('name', methods.METHODS)
def test_every_method_has_a_report(name):
  found = costs.report(make_subject(name))
  assert found.inference_share == (1.0 if name == 'dense' else 0.25)
  assert found.flops == DENSE
  assert found.sparse_train_flops > 0


def test_bytes_and_entries_are_of_all_parameters():
  found = costs.report(make_subject('static'))
  assert found.entries == A + B + 5
  assert found.active_entries == (A + B) // 4 + 5
  assert found.num_bytes == 4 * (A + B + 5)
  # Values, and a bit for each entry of a sparse layer, in whole bytes.
  assert found.sparse_bytes == 4 * (A + B) // 4 + 2 + 3 + 4 * 5
  a, bias, b = found.rows
  assert (a.path, bias.path, b.path) == ('a/w', 'b/b', 'b/w')
  assert (bias.density, bias.flops) == (1.0, 0)


def test_densities_are_of_what_is_kept():
  section = dict(make_subject('topkast').method, forward_density=0.3)
  forward, backward = costs.densities(section, PARAMS)
  assert forward == {'a/w': 4 / A, 'b/w': 6 / B}
  assert backward == {'a/w': 6 / A, 'b/w': 10 / B}


def test_excluded_layers_are_dense():
  found = costs.report(make_subject('set', exclude=('a/w',)))
  assert found.sparse_flops == 2 * A + 0.25 * 2 * B


def test_all_layers_have_the_density_of_all_with_a_global_scope():
  forward, _ = costs.densities(
    make_subject('magnitude', scope='global').method, PARAMS
  )
  assert forward == {'a/w': 8 / 32, 'b/w': 8 / 32}


def test_a_pattern_counts_in_its_units():
  pattern = {'name': 'channels', 'otherwise': 'error'}
  forward, _ = costs.densities(
    make_subject('magnitude', pattern=pattern).method, PARAMS
  )
  assert forward == {'a/w': 1 / 4, 'b/w': 1 / 5}


def test_a_method_of_unknown_cost_is_an_error():
  with pytest.raises(ValueError, match="known cost, got 'other'"):
    costs.report(make_subject('static', name='other'))


CONFIG = '--config=configs/mnist_methods.py:topkast'


def test_the_command_prints_json(capsys):
  assert command.main([CONFIG, '--json']) == 0
  found = json.loads(capsys.readouterr().out)
  assert found['entries'] == sum(row['entries'] for row in found['rows'])
  config = mnist_methods.get_config('topkast')
  assert math.isclose(
    found['inference_share'], config.method.forward_density, rel_tol=0.01
  )


def test_the_command_prints_a_row_for_each_layer(capsys):
  assert command.main([CONFIG]) == 0
  printed = capsys.readouterr().out
  found = costs.report(
    costs.image_classification(
      **{
        key: value
        for key, value in mnist_methods.get_config('topkast').to_dict().items()
        if key != 'experiment'
      }
    )
  )
  for row in found.rows:
    assert (row.path in printed) == (row.flops > 0)
    assert not row.flops or f'{row.flops:,}' in printed
  assert f'{found.train_share:.4f} of dense' in printed


def test_a_value_of_the_config_can_be_overridden(capsys):
  shares = []
  for density in (0.02, 0.2):
    override = f'--config.method.forward_density={density}'
    more = '--config.method.backward_density=0.5'
    assert command.main([CONFIG, '--json', override, more]) == 0
    shares.append(json.loads(capsys.readouterr().out)['inference_share'])
  assert math.isclose(shares[1] / shares[0], 10, rel_tol=0.05)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config=configs/none.py'], 'expected a config file, one of'),
    ([CONFIG, '--config.method.densty=0.1'], 'unknown config key'),
    ([CONFIG, '--config.method.forward_density=2.0'], 'forward_density'),
    ([CONFIG, 'more'], 'expected flags only, got more'),
  ],
)
def test_a_mistake_is_one_message(capsys, arguments, message):
  assert command.main(arguments) == command.USER_ERROR
  error = capsys.readouterr().err
  assert error.startswith('experiments.flops: ')
  assert message in error
