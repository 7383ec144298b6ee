"""Training starts from an exported network or from the folder of a run."""

import pytest

from experiments import export
from experiments import initial
from tests import oracles
from tests.experiments import small


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run of RigL, its folder, and its network."""
  folder = tmp_path_factory.mktemp('trained') / 'run'
  small.train(small.image('rigl'), folder)
  return folder, export.extract(folder)


def first_state(config):
  task = initial.make_task(config)
  state = task.stages[0].begin(config['seed'], None)
  _, storage = task.objective.method.make(config['seed'])
  return task, storage.unpack(state)


@pytest.mark.parametrize('name', ['static', 'rigl', 'topkast', 'dense'])
@pytest.mark.parametrize('storage', ['masked', 'compact'])
def test_weights_and_masks_are_those_of_the_file(
  trained, tmp_path, name, storage
):
  folder, network = trained
  file = tmp_path / 'net.safetensors'
  export.save(file, network)
  if name == 'dense':
    storage = 'masked'
  path = file if storage == 'masked' else folder
  config = small.image(name, storage, seed=7, init_from=str(path))
  task, state = first_state(config)
  method = task.objective.method
  weights = method.to_weights(state.params)
  oracles.assert_close(weights, network.weights)
  masks = method.masks(state.params, state.opt_state)
  if masks is not None:
    oracles.assert_same(masks, network.masks)


def test_a_run_trains_on_and_keeps_the_masks(trained, tmp_path):
  folder, network = trained
  config = small.image('static', init_from=str(folder))
  initial.make_task(config).check_data()
  run = small.train(config, tmp_path / 'run')
  losses = [row['loss'] for row in run.rows if row['split'] == 'train']
  assert (
    losses[0]
    < small.train(small.image('static'), tmp_path / 'new').rows[0]['loss']
  )
  after = export.extract(tmp_path / 'run').masks
  oracles.assert_same(after, network.masks)


@pytest.mark.parametrize(
  ('changes', 'word'),
  [
    ({'model': {'hidden': (17,)}}, r'linear_0/w: .*16. there, .*17. now'),
    ({'method': {'density': 0.3}}, r'active entries in linear'),
    ({'init_from': 'nowhere'}, 'config.init_from: expected'),
    ({'method': small.method('snip')}, 'SNIP'),
  ],
)
def test_misfits_are_named_before_training(trained, changes, word):
  config = small.image('static', init_from=str(trained[0]))
  config = small.update(config, changes)
  with pytest.raises(ValueError, match=word):
    initial.make_task(config).check_data()
