"""The experiment on MNIST, with a small network and few steps."""

import jax
import numpy as np
import optax
import pytest

from configs import mnist_powerprop
from configs import mnist_topkast
from experiments import image_classification
from experiments.common import build
from experiments.common import classification
from experiments.common import loop
from experiments.common import metrics
from experiments.common import run as run_lib
from experiments.data import mnist
from experiments.models import lenet
import powerprop
import topkast


def make_config(get_config, **changes):
  config = get_config('quick').to_dict()
  config.pop('experiment')
  config['model'].update(hidden=(32, 16))
  config['train'].update(
    num_steps=20, log_every=10, eval_every=10, checkpoint_every=10
  )
  config['prune'].update(num_levels=2, lowest=0.1)
  for name, value in changes.items():
    if isinstance(value, dict):
      config[name].update(value)
    else:
      config[name] = value
  return config


def make(get_config, **changes):
  return build.call(
    image_classification.build, make_config(get_config, **changes)
  )


def run(experiment, workdir):
  directory = run_lib.open_run(workdir, {})
  loop.run(
    experiment.units, experiment.schedule, directory, keep=experiment.keep
  )
  return metrics.read(workdir)


def trained(unit, num_steps=20):
  state, values = unit.train(unit.init(None), 0, num_steps)
  return jax.device_get((state, values))


def test_one_unit_for_each_alpha_and_seed():
  experiment = make(
    mnist_powerprop.get_config,
    powerprop={'alphas': (1.0, 3.0)},
    seeds=(0, 4),
    side_by_side='never',
  )
  assert [unit.members for unit in experiment.units] == [
    ({'alpha': alpha, 'seed': seed},) for alpha in (1.0, 3.0) for seed in (0, 4)
  ]


def test_alphas_of_a_seed_begin_with_the_same_theta():
  one, three = make(
    mnist_powerprop.get_config, powerprop={'alphas': (1.0, 3.0)}
  ).units
  theta = powerprop.to_weights(three.init(None).params, 3.0)
  for a, b in zip(
    jax.tree.leaves(one.init(None).params), jax.tree.leaves(theta), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_theta_is_drawn_as_the_protocol_says():
  unit = make(mnist_powerprop.get_config, model={'hidden': (300, 100)}).units[0]
  params = jax.device_get(unit.init(None).params)
  w = params['linear_0']['w'][0]
  scale = np.sqrt(1 / 784) / 0.87962566103423978
  assert w.shape == (784, 300)
  np.testing.assert_allclose(w.std(), np.sqrt(1 / 784), rtol=0.01)
  assert 1.9 * scale < np.abs(w).max() <= 2 * scale
  assert not params['linear_0']['b'].any()


def test_training_equals_a_loop_written_by_hand():
  alpha, seed = 2.0, 3
  experiment = make(
    mnist_topkast.get_config,
    powerprop={'alphas': (alpha,)},
    method={'refresh_every': 5, 'penalty': 0.0},
    seeds=(seed,),
  )
  state, _ = trained(experiment.units[0])
  data = mnist.load(data_dir=None).train
  network = lenet.lenet(hidden=(32, 16), num_classes=10)
  key = jax.random.fold_in(jax.random.key(seed), 0)
  theta, _ = network.init(key, data.inputs[:1], True)
  phi = powerprop.from_weights(theta, alpha)
  tx = topkast.topkast(
    powerprop.powerprop(optax.sgd(0.1), alpha),
    forward_density=0.1,
    backward_density=0.2,
    refresh_every=5,
  )
  opt_state = tx.init(phi)
  permutation = np.random.Generator(
    np.random.Philox(key=[seed, 0])
  ).permutation(55_000)

  @jax.jit
  def step(phi, opt_state, images, labels):
    weights = topkast.weights(powerprop.to_weights(phi, alpha), opt_state)

    def loss(weights):
      logits, _ = network.apply(weights, {}, None, images, True)
      return classification.cross_entropy(logits, labels)

    updates, opt_state = tx.update(jax.grad(loss)(weights), opt_state, phi)
    return optax.apply_updates(phi, updates), opt_state

  for i in range(20):
    chosen = permutation[60 * i : 60 * (i + 1)]
    phi, opt_state = step(
      phi, opt_state, data.inputs[chosen], data.labels[chosen]
    )
  for a, b in zip(
    jax.tree.leaves(phi), jax.tree.leaves(state.params), strict=True
  ):
    np.testing.assert_allclose(a, b[0], atol=1e-6)
  for a, b in zip(
    jax.tree.leaves(topkast.active_sets(opt_state)),
    jax.tree.leaves(topkast.active_sets(state.opt_state)),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b[0])


@pytest.mark.parametrize(
  'get_config', [mnist_powerprop.get_config, mnist_topkast.get_config]
)
def test_side_by_side_equals_one_by_one(get_config):
  same = {'powerprop': {'alphas': (2.0,)}, 'seeds': (0, 1, 2)}
  [together] = make(get_config, side_by_side='always', **same).units
  apart = make(get_config, side_by_side='never', **same).units
  state, values = trained(together)
  for i, unit in enumerate(apart):
    one_state, one_values = trained(unit)
    np.testing.assert_allclose(
      values['loss'][i], one_values['loss'][0], rtol=1e-4
    )
    for a, b in zip(
      jax.tree.leaves(state.params),
      jax.tree.leaves(one_state.params),
      strict=True,
    ):
      np.testing.assert_allclose(a[i], b[0], atol=1e-5)


def test_seeds_differ_in_theta_and_batches():
  units = make(
    mnist_powerprop.get_config, powerprop={'alphas': (1.0,)}, seeds=(0, 1)
  ).units
  first, second = (trained(unit)[1]['loss'] for unit in units)
  assert first != second


def test_rows_tell_the_whole_story(tmp_path):
  rows = run(
    make(
      mnist_topkast.get_config,
      powerprop={'alphas': (1.0,)},
      prune={'num_levels': 4, 'lowest': 0.02},
    ),
    tmp_path / 'r',
  )
  splits = [row['split'] for row in rows]
  assert splits == [
    'train', 'validation', 'train', 'validation', 'test', 'pruned', 'pruned',
    'pruned', 'histogram', 'histogram',
  ]  # fmt: skip
  test, pruned, before = rows[4], rows[5:8], rows[8]
  assert 0 < test['accuracy'] <= 1
  assert pruned[-1]['accuracy'] == test['accuracy']  # all weights kept
  assert pruned[-1]['density'] == pytest.approx(0.1, abs=1e-3)
  assert pruned[0]['density'] == pytest.approx(0.02, abs=1e-3)
  assert sum(before['counts']) == 784 * 32 + 32 * 16 + 160
  assert rows[0]['density'] == pytest.approx(0.1, abs=1e-3)


def test_final_state_holds_exactly_k_entries():
  unit = make(mnist_topkast.get_config).units[0]
  sets = topkast.active_sets(trained(unit)[0].opt_state)
  for tree, density in zip(sets, (0.1, 0.2), strict=True):
    for layer, size in (('linear_0', 784 * 32), ('linear_2', 160)):
      assert tree[layer]['w'].sum() == round(density * size)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'seeds': (0, 0)}, 'config.seeds: expected different seeds'),
    ({'seeds': ()}, 'config.seeds: expected different seeds'),
    ({'side_by_side': 'yes'}, "config.side_by_side: .* got 'yes'"),
    ({'powerprop': {'alphas': (0.5,)}}, r'alpha >= 1, got \[0.5\]'),
    ({'powerprop': {'optimizer_in': 'x'}}, "optimizer_in: .* got 'x'"),
    ({'method': {'forward_density': 0.0}}, r'forward_density in \(0, 1\]'),
    ({'method': {'forward_density': 0.3}}, 'forward_density=0.3, backward'),
    ({'method': {'dense': ('conv',)}}, "got 'conv', which matches none"),
    ({'train': {'batch_size': 60_000}}, 'config.train.batch_size: .* 55000'),
    ({'train': {'keep_checkpoints': 0}}, 'keep_checkpoints: expected >= 1'),
    ({'train': {'steps': 3}}, "config.train: unknown key 'steps'"),
    ({'prune': {'lowest': 1e-3}}, 'linear_1/w with 512 weights'),
    ({'data': {'data_dir': '/nowhere'}}, 'nowhere'),
  ],
)
def test_mistakes_are_refused_when_built(changes, message):
  with pytest.raises(ValueError, match=message):
    make(mnist_topkast.get_config, **changes)
