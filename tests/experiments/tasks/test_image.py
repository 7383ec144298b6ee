"""Image classification on MNIST, with a small network and few steps."""

import jax
import numpy as np
import optax
import pytest

from experiments.data import mnist
from experiments.models import lenet
from experiments.tasks import classification
from experiments.tasks import table
import powerprop
import sparsity
from tests import oracles
from tests.experiments import small
import topkast

SIZE = 784 * 16  # of the large layer


def test_training_equals_a_loop_written_by_hand(tmp_path):
  alpha, seed = 2.0, 3
  config = small.image(method={'refresh_every': 5, 'penalty': 0.0})
  found = small.train(config, tmp_path).state
  data = mnist.load(data_dir=None).train
  network = lenet.lenet(hidden=(16,), num_classes=10)
  key = jax.random.fold_in(jax.random.key(seed), 0)
  theta, _ = network.init(key, data.inputs[:1], True)
  phi = powerprop.from_weights(theta, alpha)
  tx = topkast.topkast(
    powerprop.powerprop(optax.sgd(0.1, 0.9), alpha),
    forward_density=0.2,
    backward_density=0.4,
    refresh_every=5,
  )
  opt_state = tx.init(phi)
  generator = np.random.Generator(np.random.Philox(key=[seed, 0]))
  permutation = generator.permutation(55_000)

  @jax.jit
  def step(phi, opt_state, images, labels):
    weights = topkast.weights(powerprop.to_weights(phi, alpha), opt_state)

    def loss(weights):
      logits, _ = network.apply(weights, {}, None, images, True)
      return classification.cross_entropy(logits, labels)

    updates, opt_state = tx.update(jax.grad(loss)(weights), opt_state, phi)
    return optax.apply_updates(phi, updates), opt_state

  for i in range(20):
    chosen = permutation[12 * i : 12 * (i + 1)]
    phi, opt_state = step(
      phi, opt_state, data.inputs[chosen], data.labels[chosen]
    )
  oracles.assert_close(phi, found.params, atol=2e-6)
  sets = [topkast.active_sets(x) for x in (opt_state, found.opt_state)]
  oracles.assert_same(*sets)
  for tree, density in zip(sets[1], (0.2, 0.4), strict=True):
    assert tree['linear_0']['w'].sum() == round(density * SIZE)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run with pruning levels below and above the density."""
  config = small.image(prune={'num_levels': 4})
  return small.train(config, tmp_path_factory.mktemp('run'))


def test_rows_tell_the_whole_story(run):
  rows = [row for row in run.rows if row['split'] != 'train']
  assert [row['split'] for row in rows] == [
    'validation', 'validation', 'test', 'pruned', 'pruned', 'pruned',
    'histogram', 'histogram',
  ]  # fmt: skip
  test, pruned, (before, after) = rows[2], rows[3:6], rows[6:]
  assert 0 < test['accuracy'] <= 1
  assert [row['share'] for row in pruned] == pytest.approx(
    [0.05, 0.1357, 0.3684], rel=1e-3
  )
  # The output layer keeps twice the share; no network has more than its own.
  assert pruned[0]['density'] == pytest.approx(0.05 * 1.0126, rel=1e-2)
  assert pruned[-1]['density'] == pytest.approx(0.2, abs=1e-3)
  assert pruned[-1]['accuracy'] == test['accuracy']
  assert sum(before['counts']) == sum(after['counts']) == SIZE + 160
  assert (before['when'], after['when']) == ('before', 'after')
  train = [row for row in run.rows if row['split'] == 'train']
  assert [row['step'] for row in train] == [5, 10, 15, 20]
  assert train[0]['density'] == pytest.approx(0.2, abs=1e-3)
  assert 0 < train[0]['mask_change'] < 0.1


def test_snip_keeps_weights_with_a_gradient_in_the_first_batch():
  config = small.image('snip', train={'batch_size': 40})
  [stage] = table.make_task(config).stages
  masks = sparsity.active_sets(stage.begin(3, None).opt_state).forward
  # MNIST's border is black, so no weight from there has a gradient.
  grid = np.asarray(masks['linear_0']['w']).any(-1).reshape(28, 28)
  assert not grid[0].any()
  assert not grid[:, 0].any()
  assert grid[10:18, 10:18].all()


def test_snip_scores_in_float32_whatever_the_compute_dtype():
  found = []
  for dtype in ('bfloat16', 'float32'):
    config = small.image('snip', prune={'output_layer': None})
    config['model'] = dict(name='alexnet', dropout=0.0, compute_dtype=dtype)
    [stage] = table.make_task(config).stages
    found.append(sparsity.active_sets(stage.begin(3, None).opt_state).forward)
  oracles.assert_same(*found)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'experiment': 'x'}, "config.experiment: .* got 'x'"),
    ({'seed': -1}, 'config.seed: expected 0 to'),
    ({'method': {'exclude': ('conv',)}}, "got 'conv', which matches none"),
    ({'train': {'eval_every': 7}}, 'eval_every: expected a multiple of log_e'),
    ({'train': {'on_not_finite': 'go on'}}, "on_not_finite: .* got 'go on'"),
    ({'train': {'num_devices': 5}}, 'num_devices from 1 to 4'),
    ({'train': {'num_devices': 3}}, 'batch_size as a multiple of 3.* 1000'),
    ({'prune': {'lowest': 1e-3, 'num_levels': 2}}, 'linear_1/w with 160'),
  ],
)
def test_a_mistake_is_refused_before_data_are_read(changes, message):
  config = small.image(data={'data_dir': '/nowhere'})
  with pytest.raises(ValueError, match=message):
    table.make_task(small.update(config, changes))


def test_acdc_that_would_not_end_sparse_is_refused():
  config = small.image('acdc', train={'num_steps': 15})
  with pytest.raises(ValueError, match=r'end: expected less than .*=15.* 17'):
    table.make_task(config)


def test_seeds_share_one_task_and_differ_in_theta():
  config = small.image()
  task = table.make_task(config)
  assert table.make_task({**config, 'seed': 4}) is task
  a, b = (task.stages[0].begin(seed, None).params for seed in (3, 4))
  assert (a['linear_0']['w'] != b['linear_0']['w']).mean() > 0.9


def test_data_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='nowhere'):
    table.make_task(small.image(data={'data_dir': '/nowhere'})).check_data()
  task = table.make_task(small.image(train={'batch_size': 60_000}))
  with pytest.raises(ValueError, match=r'batch_size: expected 1 to 55000'):
    task.check_data()


def test_gradients_of_convolutions_on_a_cpu_are_not_compiled_into_a_loop():
  config = small.image('dense', prune={'output_layer': None})
  is_compiled = []
  residual = {
    'name': 'wide_resnet', 'depth': 10, 'width': 1, 'dropout': 0.0,
    'compute_dtype': 'float32',
  }  # fmt: skip
  for model in (config['model'], {'name': 'lenet5'}, residual):
    task = table.make_task(config | {'model': model})
    is_compiled.append(hasattr(task.steps.advance, 'lower'))
  assert is_compiled == [True, True, False]
