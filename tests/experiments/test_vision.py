"""Every method, from a config to accuracy, on small data of the real layout."""

import json

import jax
import numpy as np
import pytest

from configs import cifar10_alexnet
from configs import cifar10_wrn
from configs import imagenet_resnet50
from configs import methods as method_configs
from configs import mnist_dense
from experiments import export
from experiments import image_classification
from experiments import table
from experiments.common import build
from experiments.common import loop
from experiments.common import metrics
from experiments.common import run as run_lib
import sparsity

NUM_STEPS = 12


def make(config):
  plain = json.loads(json.dumps(config.to_dict()))
  plain.pop('experiment')
  return build.call(image_classification.build, plain)


def lenet(name, alpha=1.0, **changes):
  config = mnist_dense.get_config('quick')
  config.model.hidden = (32,)
  config.powerprop.alphas = (alpha,)
  config.method = method_configs.section(
    name,
    density=0.1,
    num_steps=NUM_STEPS,
    refresh_every=2,
    grow_at=0.0 if alpha == 1 else 0.1,
  )
  config.method.update(changes)
  config.train.update(
    num_steps=NUM_STEPS, log_every=6, eval_every=6, checkpoint_every=6
  )
  config.prune.update(num_levels=0, output_layer='linear_1/w')
  return config


def trained(unit, chunks=((0, NUM_STEPS),)):
  state = unit.init(None)
  for first_step, num_steps in chunks:
    state, values = unit.train(state, first_step, num_steps)
  return state, jax.device_get(values)


@pytest.mark.parametrize('alpha', [1.0, 2.0])
@pytest.mark.parametrize('name', method_configs.NAMES)
def test_every_method_trains_and_ends_at_its_density(name, alpha):
  [unit] = make(lenet(name, alpha)).units
  state, values = trained(unit)
  assert np.isfinite(values['loss'])
  expected = 1.0 if name == 'dense' else 0.1
  assert values['density'] == pytest.approx(expected, abs=1e-3)
  if name != 'dense':
    sets = sparsity.active_sets(state.opt_state)
    assert sets.forward['linear_0']['w'].sum() == round(0.1 * 784 * 32)
  [rows] = unit.report(state)
  assert 0 <= rows[0]['accuracy'] <= 1


def test_snip_keeps_what_the_first_batches_are_sensitive_to():
  [unit] = make(lenet('snip', num_batches=3)).units
  state = unit.init(None)
  masks = sparsity.active_sets(state.opt_state).forward
  # MNIST's border is black, so no weight from there has a gradient.
  grid = np.asarray(masks['linear_0']['w'])[0].any(-1).reshape(28, 28)
  assert not grid[0].any()
  assert not grid[:, 0].any()
  assert grid[10:18, 10:18].all()


def test_a_pattern_is_a_section_of_its_own():
  config = lenet('magnitude')
  config.method.at = 2
  config.method.density = 0.5
  config.method.pattern = dict(name='n_of_m', n=2, m=4, otherwise='error')
  state, _ = trained(make(config).units[0])
  mask = sparsity.active_sets(state.opt_state).forward['linear_0']['w'][0]
  assert (mask.reshape(-1, 4, 32).sum(1) == 2).all()


def test_excluded_layers_stay_dense_and_do_not_count():
  config = lenet('static', exclude=('linear_1',))
  state, _ = trained(make(config).units[0])
  masks = sparsity.active_sets(state.opt_state).forward
  assert masks['linear_1']['w'].all()
  assert masks['linear_0']['w'].sum() == round(0.1 * 784 * 32)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('get_config', 'argument'),
  [
    (cifar10_alexnet.get_config, 'topkast,num_steps=40'),
    (cifar10_wrn.get_config, 'topkast'),
  ],
)
def test_cifar_trains_on_augmented_images(cifar_dir, get_config, argument):
  config = get_config(argument)
  config.data.update(data_dir=str(cifar_dir), num_validation=20)
  config.seeds = (0,)
  config.train.update(
    batch_size=2, eval_batch_size=10, num_steps=2, log_every=2, eval_every=2,
    checkpoint_every=2,
  )  # fmt: skip
  config.prune.num_levels = 2
  [unit] = make(config).units
  state, values = trained(unit, [(0, 2)])
  assert np.isfinite(values['loss'])
  [rows] = unit.report(state)
  assert [row['split'] for row in rows[:2]] == ['test', 'pruned']


def small_imagenet(imagenet_dir, variant, **train):
  config = imagenet_resnet50.get_config(f'{variant},batch_size=8')
  config.data.update(
    data_dir=str(imagenet_dir), num_workers=0, image_size=64, resize=72
  )
  config.model.name = 'resnet18'
  config.model.stem = 'imagenet'
  config.train.update(
    batch_size=8, eval_batch_size=8, num_steps=4, log_every=2, eval_every=4,
    checkpoint_every=2, num_devices=1,
  )  # fmt: skip
  config.train.update(train)
  return config


@pytest.mark.slow
def test_imagenet_from_bytes_to_accuracy_and_to_a_file(imagenet_dir, tmp_path):
  config = small_imagenet(imagenet_dir, 'powerprop_topkast', batch_size=2)
  experiment = make(config)
  plain = json.loads(json.dumps(config.to_dict()))
  directory = run_lib.open_run(tmp_path / 'run', plain)
  outcome = loop.run(
    experiment.units, experiment.schedule, directory, keep=experiment.keep
  )
  assert outcome.status == 'done'
  rows = metrics.read(tmp_path / 'run')
  splits = [row['split'] for row in rows]
  assert splits[:4] == ['train', 'train', 'validation', 'test']
  assert rows[0]['quarantined'] == 0
  assert rows[0]['density'] == pytest.approx(0.1, abs=0.01)
  assert 0 <= rows[0]['mask_change'] < 0.1
  file = tmp_path / 'net.safetensors'
  arguments = [f'--workdir={tmp_path / "run"}', f'--out={file}']
  assert export.main(arguments, table.EXPERIMENTS) == 0
  exported = export.load(file)
  assert 'stem/conv' not in exported.masks  # dense
  assert exported.state  # batch statistics

  # The same run stopped half way and gone on with ends with the same numbers.
  [unit] = experiment.units
  whole = trained(unit, [(0, 4)])[0]
  state, _ = trained(unit, [(0, 2)])
  [later] = make(config).units
  state, _ = later.train(state, 2, 2)
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(state), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_missing_data_set_is_refused_with_the_command(tmp_path):
  config = imagenet_resnet50.get_config('dense,batch_size=8')
  config.data.data_dir = str(tmp_path)
  config.train.num_devices = 1
  with pytest.raises(
    ValueError, match=r'experiments.data.prepare imagenet2012'
  ):
    make(config)


def test_without_a_folder_of_data_it_is_said(tmp_path):
  config = imagenet_resnet50.get_config('dense,batch_size=8')
  config.train.num_devices = 1
  with pytest.raises(ValueError, match=r'config.data.data_dir: expected str'):
    make(config)


def test_seeds_side_by_side_need_data_on_the_device():
  config = imagenet_resnet50.get_config('dense,batch_size=8')
  config.train.num_devices = 1
  config.side_by_side = 'always'
  with pytest.raises(ValueError, match="side_by_side: expected 'never'"):
    make(config)
