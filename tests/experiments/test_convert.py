"""Runs with compact and with masked weights: the same results, either way."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from experiments import convert
from experiments import export
from experiments import table
from experiments.common import build
from experiments.common import checkpoint
from experiments.common import metrics
from experiments.common import storage as storage_lib
import launch

CONFIGS = pathlib.Path(launch.__file__).parent / 'configs'
FLAGS = (
  f'--config={CONFIGS}/mnist_topkast.py:quick',
  '--config.model.hidden=(16,)',
  '--config.powerprop.alphas=(2.0,)',
  '--config.seeds=(0, 1)',
  '--config.method.refresh_every=3',
  '--config.optimizer.momentum=0.9',
  '--config.train.num_steps=20',
  '--config.train.log_every=10',
  '--config.train.eval_every=10',
  '--config.train.checkpoint_every=10',
  '--config.prune.num_levels=2',
  '--config.prune.lowest=0.1',
  '--config.prune.output_layer=linear_1/w',
)
MEMBER = '--member=alpha=2,seed=1'


def start(storage, workdir, *more):
  flag = f'--config.method.storage={storage}'
  return launch.main([*FLAGS, flag, f'--workdir={workdir}', *more])


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Folders of two runs that are done, which differ in storage."""
  folder = tmp_path_factory.mktemp('runs')
  for storage in ('masked', 'compact'):
    assert start(storage, folder / storage) == 0
  return folder


def to(storage, workdir, out):
  arguments = [f'--workdir={workdir}', f'--out={out}', f'--storage={storage}']
  return convert.main(arguments, table.EXPERIMENTS)


def exported(workdir, out, *more):
  arguments = [f'--workdir={workdir}', f'--out={out}', MEMBER, *more]
  assert export.main(arguments, table.EXPERIMENTS) == 0
  return export.load(out)


def states(workdir):
  """Returns all checkpoints: what the device had, and the same as masked."""
  config = json.loads((workdir / 'config.json').read_text())
  modules = {name: module.trained for name, module in table.EXPERIMENTS.items()}
  one = build.build(modules, config, key='experiment')[0]
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints', 9)
  found = {}
  for step in checkpoints.steps():
    state, metadata = checkpoints.restore(one.like, step)
    # What is stored of active entries may be old.
    held = storage_lib.on_device(state)
    found[step] = (held, one.storage.unpack(state), metadata)
  return found


def assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_same_rows(found, expected):
  assert len(found) == len(expected)
  for row, other in zip(found, expected, strict=True):
    # Weights at the edge of a bin fall to either side of it.
    assert row.pop('edges', None) == other.pop('edges', None)
    assert sum(row.pop('counts', [])) == sum(other.pop('counts', []))
    for name in ('split', 'when'):
      assert row.pop(name, None) == other.pop(name, None)
    assert row == pytest.approx(other, rel=1e-3, abs=1e-4)


def test_a_compact_run_has_the_results_of_a_masked_one(runs):
  assert_same_rows(
    metrics.read(runs / 'compact'), metrics.read(runs / 'masked')
  )
  names = {
    storage: {path.name for path in (runs / storage / 'plots').iterdir()}
    for storage in ('masked', 'compact')
  }
  assert names['compact'] == names['masked'] != set()


def test_evaluation_alone_finds_what_a_compact_run_did(runs):
  assert start('compact', runs / 'compact', '--eval_only') == 0
  found, summary = (
    json.loads((runs / 'compact' / name).read_text())
    for name in ('evaluation.json', 'summary.json')
  )
  assert found == {name: summary[name] for name in found}


def test_an_exported_network_is_that_of_a_masked_run(runs, tmp_path):
  masked, compact = (
    exported(runs / storage, tmp_path / storage)
    for storage in ('masked', 'compact')
  )
  assert_equal(compact.masks, masked.masks)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    compact.weights,
    masked.weights,
  )


@pytest.mark.parametrize('storage', ['masked', 'compact'])
def test_a_compact_file_holds_the_same_network_and_is_small(
  runs, tmp_path, storage
):
  large, small = tmp_path / 'large', tmp_path / 'small'
  one = exported(runs / storage, large)
  other = exported(runs / storage, small, '--compact')
  assert_equal(one[:3], other[:3])
  assert one.header['densities'] == other.header['densities']
  # Ten percent of the weights with an index each, for all and a mask.
  assert small.stat().st_size < 0.3 * large.stat().st_size


@pytest.mark.parametrize(
  ('first', 'second'), [('masked', 'compact'), ('compact', 'masked')]
)
def test_a_run_that_is_converted_and_back_is_the_same(
  runs, tmp_path, first, second
):
  there, back = tmp_path / 'there', tmp_path / 'back'
  assert to(second, runs / first, there) == 0
  assert to(first, there, back) == 0
  assert_equal(states(back), states(runs / first))
  assert (back / 'metrics.jsonl').read_bytes() == (
    runs / first / 'metrics.jsonl'
  ).read_bytes()
  assert_equal(
    exported(there, tmp_path / 'a')[:3],
    exported(runs / first, tmp_path / 'b')[:3],
  )


@pytest.mark.parametrize(
  ('first', 'second'), [('masked', 'compact'), ('compact', 'masked')]
)
def test_a_converted_run_goes_on(runs, tmp_path, first, second):
  half, rest = tmp_path / 'half', tmp_path / 'rest'
  shutil.copytree(runs / first, half)
  shutil.rmtree(half / 'checkpoints/40')  # as if stopped at step 30
  assert to(second, half, rest) == 0
  assert max(states(rest)) == 30
  assert start(second, rest) == 0
  assert_same_rows(metrics.read(rest), metrics.read(runs / first))


@pytest.mark.parametrize(
  ('storage', 'message'),
  [
    ('masked', "expected another storage than 'masked'"),
    ('compact', 'expected a new or empty folder'),
  ],
)
def test_what_cannot_be_converted_is_refused(
  runs, tmp_path, capsys, storage, message
):
  (tmp_path / 'file').touch()
  assert to(storage, runs / 'masked', tmp_path) == convert.USER_ERROR
  assert message in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_a_run_of_a_method_that_cannot_be_compact_is_refused(
  runs, tmp_path, capsys
):
  config = json.loads((runs / 'masked/config.json').read_text())
  config['method'] |= {'scope': 'global'}
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run/config.json').write_text(json.dumps(config))
  assert to('compact', tmp_path / 'run', tmp_path / 'out') == convert.USER_ERROR
  assert "expected 'layer'" in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()
