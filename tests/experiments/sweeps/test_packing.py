"""Runs side by side, and each in its own folder."""

import json
import os
import pathlib
import signal
import threading
import time

import jax
import numpy as np
import pytest

from configs import imagenet_resnet50
from configs import mnist_methods
from configs import mnist_topkast
from configs import permuted_mnist
from experiments import image_classification
from experiments.common import build
from experiments.common import metrics
from experiments.sweeps import grouping
from experiments.sweeps import packing
from experiments.sweeps import plan
from experiments.sweeps import states
from experiments.sweeps import unpacking
import launch

ROOT = pathlib.Path(launch.__file__).parent
TOPKAST = f'{ROOT}/configs/mnist_topkast.py:quick'
SHARED = [
  '--config.model.hidden=(16,8)',
  '--config.train.num_steps=20',
  '--config.train.log_every=10',
  '--config.train.eval_every=10',
  '--config.train.checkpoint_every=10',
  '--config.prune.num_levels=2',
  '--config.prune.lowest=0.2',
  '--config.method.refresh_every=5',
  '--config.optimizer.momentum=0.9',
]
# All that may differ does.
RUNS = [
  {
    'powerprop.alphas': (1.0,),
    'seeds': (3,),
    'optimizer.learning_rate': 0.1,
    'optimizer.weight_decay': 0.0,
    'method.penalty': 1e-3,
  },
  {
    'powerprop.alphas': (3.0,),
    'seeds': (0,),
    'optimizer.learning_rate': 0.02,
    'optimizer.weight_decay': 1e-3,
    'method.penalty': 1e-2,
  },
]


def plain(config):
  return json.loads(json.dumps(config.to_dict()))


def load(overrides, *shared):
  """Returns runs and their configs, plain, by name."""
  runs = plan.make_runs(overrides, TOPKAST, [*SHARED, *shared])
  return runs, {
    run.name: plain(launch.parse([*run.arguments, '--workdir=x']).config)
    for run in runs
  }


def built(config):
  sections = {k: v for k, v in config.items() if k != 'experiment'}
  return build.call(image_classification.build, sections)


def trained(unit):
  state, values = unit.train(unit.init(None), 0, 20)
  return jax.device_get((state, values))


@pytest.mark.parametrize('optimizer_in', ['theta', 'phi'])
def test_side_by_side_is_as_one_by_one_to_rounding(optimizer_in):
  _, configs = load(RUNS, f'--config.powerprop.optimizer_in={optimizer_in}')
  assert grouping.group(configs, 9) == [tuple(configs)]
  [pack] = packing.build(list(configs.values())).units
  state, values = trained(pack)
  alone = [unit for config in configs.values() for unit in built(config).units]
  assert len(alone) == len(pack.members) == 2
  for i, unit in enumerate(alone):
    assert pack.members[i].items() >= unit.members[0].items()
    one_state, one_values = trained(unit)
    np.testing.assert_allclose(
      values['loss'][i], one_values['loss'][0], rtol=1e-4
    )
    for a, b in zip(
      jax.tree.leaves(state), jax.tree.leaves(one_state), strict=True
    ):
      np.testing.assert_allclose(a[i], b[0], atol=1e-5)


def test_a_pack_of_snip_has_scores_for_each_network():
  config = plain(mnist_methods.get_config('snip,quick=1'))
  config['model'] = {'name': 'lenet', 'hidden': [16, 8]}
  config['train']['batch_size'] = 10
  alone = built({**config, 'seeds': (0, 1)}).units
  configs = [{**config, 'seeds': [seed]} for seed in (0, 1)]
  [pack] = packing.build(configs).units
  state = pack.init(None)
  for i, unit in enumerate(alone):
    for a, b in zip(
      jax.tree.leaves(state), jax.tree.leaves(unit.init(None)), strict=True
    ):
      np.testing.assert_allclose(a[i], b[0], atol=1e-6)


def test_runs_that_differ_in_more_are_not_packed():
  _, configs = load(
    [
      {'seeds': (0,)},
      {'seeds': (1,)},
      {'seeds': (2,)},
      {'seeds': (1,), 'method.forward_density': 0.05},
      {'seeds': (2,), 'method.forward_density': 0.05},
    ]
  )
  a, b, c, d, e = configs
  assert grouping.group(configs, 2) == [(a, b), (c,), (d, e)]
  assert grouping.group(configs, 1) == [(a,), (b,), (c,), (d,), (e,)]


@pytest.mark.parametrize(
  'config',
  [
    imagenet_resnet50.get_config('topkast'),
    permuted_mnist.get_config('quick'),
  ],
)
def test_what_cannot_be_side_by_side_is_alone(config):
  configs = {}
  for seed in (0, 1):
    config.seeds = (seed,)
    configs[f'seed{seed}'] = plain(config)
  assert grouping.group(configs, 8) == [('seed0',), ('seed1',)]


def test_several_devices_are_for_one_run():
  config = mnist_topkast.get_config('quick')
  assert grouping.is_packable(plain(config))
  config.train.num_devices = 2
  assert not grouping.is_packable(plain(config))


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """Runs as they were trained in a pack, and alone."""
  packed = tmp_path_factory.mktemp('packed')
  alone = tmp_path_factory.mktemp('alone')
  runs, configs = load(
    [
      {'powerprop.alphas': (1.0, 2.0), 'seeds': (0, 3)},
      {'powerprop.alphas': (1.0, 4.0), 'optimizer.learning_rate': 5.0},
    ]
  )
  members = [
    unpacking.Packed(run.name, list(run.arguments), configs[run.name])
    for run in runs
  ]
  folder = packed / 'packs' / 'one'
  unpacking.write(folder, members)
  assert unpacking.train(folder, launch.main) == 0
  for run in runs:
    launch.main([*run.arguments, f'--workdir={alone / run.name}'])
  names = [run.name for run in runs]
  return [(packed / name, alone / name) for name in names], folder, runs


def read(path):
  return json.loads(path.read_text())


def test_a_run_of_a_pack_has_an_ordinary_folder(folders):
  [(packed, alone), _], folder, _ = folders
  assert {p.name for p in packed.iterdir()} == {p.name for p in alone.iterdir()}
  for name in ('plots', 'checkpoints', 'tensorboard'):
    assert {p.name for p in (packed / name).iterdir()} >= {
      p.name
      for p in (alone / name).iterdir()
      # Those that rotate are of no use any more.
      if name != 'checkpoints' or int(p.name) % 20 == 0
    }
  assert read(packed / 'config.json') == read(alone / 'config.json')
  assert read(packed / 'status.json')['status'] == 'done'
  assert read(packed / 'status.json')['global_step'] == 80
  assert not folder.parent.exists()


def test_a_run_of_a_pack_has_the_same_rows(folders):
  [(packed, alone), _], _, _ = folders
  rows, expected = metrics.read(packed), metrics.read(alone)
  assert len(rows) == len(expected) > 20
  for row, other in zip(rows, expected, strict=True):
    assert list(row) == list(other)
    for name, value in other.items():
      if name in ('split', 'when'):
        assert row[name] == value
      elif name not in ('counts', 'edges'):
        assert row[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
  summary, other = (read(p / 'summary.json') for p in (packed, alone))
  assert summary.keys() == other.keys()
  assert [test['seeds'] for test in summary['test']] == [[0, 3], [0, 3]]
  assert summary['wall_time_s'] > 0


def test_a_run_of_a_pack_can_be_evaluated_and_started_again(folders, capsys):
  [(packed, _), _], _, [run, _] = folders
  arguments = [*run.arguments, f'--workdir={packed}']
  before = (packed / 'metrics.jsonl').read_bytes()
  assert launch.main(arguments) == 0
  assert (packed / 'metrics.jsonl').read_bytes() == before
  assert launch.main([*arguments, '--eval_only']) == 0
  summary = read(packed / 'summary.json')
  assert read(packed / 'evaluation.json')['test'] == summary['test']


def test_a_pack_that_is_stopped_saves_and_its_runs_are_interrupted(tmp_path):
  runs, configs = load(RUNS, '--config.train.num_steps=100_000_000')
  folder = tmp_path / 'packs' / 'one'
  unpacking.write(
    folder,
    [
      unpacking.Packed(run.name, list(run.arguments), configs[run.name])
      for run in runs
    ],
  )

  def stop():
    deadline = time.monotonic() + 120
    while states.read(tmp_path / runs[1].name, folder, 1).step < 20:
      if time.monotonic() > deadline:
        return
      time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)

  thread = threading.Thread(target=stop, daemon=True)
  thread.start()
  assert unpacking.train(folder, launch.main) == 128 + signal.SIGTERM
  thread.join()
  assert any((folder / 'checkpoints').iterdir())
  for run in runs:
    status = read(tmp_path / run.name / 'status.json')['status']
    assert status == 'interrupted'


def test_one_run_may_diverge_without_the_others(folders):
  [_, (packed, alone)], _, _ = folders
  status, expected = (read(p / 'status.json') for p in (packed, alone))
  assert expected['status'] == 'diverged'
  for key in ('status', 'global_step', 'message'):
    assert status[key] == expected[key]
  assert not (packed / 'summary.json').exists()
  rows, others = metrics.read(packed), metrics.read(alone)
  assert [row['global_step'] for row in rows] == [
    row['global_step'] for row in others
  ]
  assert all(row['loss'] < 1e9 for row in rows if row['split'] == 'train')
