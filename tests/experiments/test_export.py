"""A trained network goes to a file and back with equal outputs."""

import json
import resource
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

from configs import mnist_topkast
from experiments import export
from experiments import image_classification
from experiments import table
from experiments.common import build
from experiments.common import classification
from experiments.common import loop
from experiments.common import metrics
from experiments.common import run as run_lib
from experiments.data import mnist
from experiments.models import lenet


def make_config():
  config = mnist_topkast.get_config('quick')
  config.model.hidden = (32, 16)
  config.seeds = (0, 1)
  config.train.update(
    num_steps=20, log_every=10, eval_every=20, checkpoint_every=10
  )
  config.prune.num_levels = 0
  return json.loads(json.dumps(config.to_dict()))


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run of two alphas and two seeds, which is done."""
  workdir = tmp_path_factory.mktemp('export') / 'run'
  config = make_config()
  directory = run_lib.open_run(workdir, config)
  config.pop('experiment')
  experiment = build.call(image_classification.build, config)
  loop.run(
    experiment.units, experiment.schedule, directory, keep=experiment.keep
  )
  return workdir


def run(workdir, out, *more):
  arguments = [f'--workdir={workdir}', f'--out={out}', *more]
  return export.main(arguments, table.EXPERIMENTS)


@pytest.mark.parametrize('alpha', [1.0, 2.0])
@pytest.mark.parametrize('seed', [0, 1])
def test_what_is_read_back_has_the_accuracy_of_the_run(
  workdir, tmp_path, alpha, seed
):
  file = tmp_path / 'net.safetensors'
  assert run(workdir, file, f'--member=alpha={alpha},seed={seed}') == 0
  exported = export.load(file)
  data = mnist.load(data_dir=None).test
  logits, _ = lenet.lenet(hidden=(32, 16), num_classes=10).apply(
    exported.weights, exported.state, None, data.inputs, False
  )
  [row] = [
    row
    for row in metrics.read(workdir)
    if (row['split'], row['alpha'], row['seed']) == ('test', alpha, seed)
  ]
  loss = classification.cross_entropy(jnp.asarray(logits), data.labels)
  np.testing.assert_allclose(float(loss), row['loss'], rtol=1e-5)
  assert exported.header['member'] == {'alpha': alpha, 'seed': seed}
  assert exported.header['config'] == make_config()


def test_masks_say_what_the_network_sees(workdir, tmp_path):
  file = tmp_path / 'net.safetensors'
  assert run(workdir, file, '--member=alpha=2,seed=0') == 0
  exported = export.load(file)
  assert set(exported.masks) == {'linear_0', 'linear_1', 'linear_2'}
  for layer, masks in exported.masks.items():
    seen = exported.weights[layer]['w'] != 0
    assert not (seen & ~masks['w']).any()
    assert masks['w'].sum() == round(0.1 * seen.size)
  densities = exported.header['densities']
  assert densities['linear_0/w'] == pytest.approx(0.1, abs=1e-3)


def test_an_earlier_checkpoint_can_be_exported(workdir, tmp_path):
  late, early = tmp_path / 'late', tmp_path / 'early'
  assert run(workdir, late, '--member=alpha=2,seed=1') == 0
  assert run(workdir, early, '--member=alpha=2,seed=1', '--step=70') == 0
  a, b = export.load(late).weights, export.load(early).weights
  assert (a['linear_0']['w'] != b['linear_0']['w']).any()


@pytest.mark.parametrize(
  ('more', 'message'),
  [
    ((), 'fits 4 of:'),
    (('--member=alpha=3',), 'fits 0 of:'),
    (('--member=alpha=x',), 'fits 0 of:'),
    (('--member=alpha=2,seed=1', '--step=7'), 'a checkpoint of step 7'),
  ],
)
def test_a_member_that_is_not_one_is_refused(
  workdir, tmp_path, capsys, more, message
):
  assert run(workdir, tmp_path / 'net', *more) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'net').exists()


@pytest.mark.parametrize('content', [b'', b'\x80\x04pickle', b'x' * 100])
def test_another_file_is_refused(tmp_path, content):
  (tmp_path / 'net').write_bytes(content)
  with pytest.raises(ValueError, match='expected an exported network in'):
    export.load(tmp_path / 'net')


def test_batch_statistics_and_dense_networks_go_through(tmp_path):
  weights = {'a/b': {'w': jnp.ones((2, 3)), 'b': jnp.zeros(3)}}
  state = {'a/norm/~/mean_ema': {'average': jnp.arange(3.0)}}
  export.save(
    tmp_path / 'net', weights, None, state, config={'x': 1}, member={'seed': 0}
  )
  exported = export.load(tmp_path / 'net')
  assert exported.masks == {}
  for found, given in ((exported.weights, weights), (exported.state, state)):
    assert jax.tree.structure(found) == jax.tree.structure(given)
    jax.tree.map(np.testing.assert_array_equal, found, given)


def test_a_file_of_another_format_is_refused(tmp_path):
  export.save(tmp_path / 'net', {}, None, {}, config={}, member={})
  content = (tmp_path / 'net').read_bytes()
  with safetensors.safe_open(tmp_path / 'net', 'numpy') as file:
    assert 'sparse-training' in file.metadata()
  (tmp_path / 'net').write_bytes(
    content.replace(b'\\"format\\": 1', b'\\"format\\": 9')
  )
  with pytest.raises(ValueError, match=r'expected format 1 .* got 9'):
    export.load(tmp_path / 'net')


def forged(length, header=b'{}', data=b''):
  """A file whose first 8 bytes say how long its header is."""
  return struct.pack('<Q', length) + header + data


def header(**tensors):
  content = {'__metadata__': {'sparse-training': '{"format": 1}'}, **tensors}
  return json.dumps(content).encode()


def tensor(dtype, size, num_bytes):
  return {'dtype': dtype, 'shape': [size], 'data_offsets': [0, num_bytes]}


HUGE = header(**{'weights/w': tensor('F32', 2**40, 2**42)})
OTHER = header(**{'../../w': tensor('U8', 1, 1)})


@pytest.mark.parametrize(
  'content',
  [
    forged(2**62),
    forged(2**62 + 2, b'{}' * 100),
    forged(2, b'[]'),
    forged(len(HUGE), HUGE),
    forged(len(HUGE), HUGE, b'0' * 16),
    forged(len(OTHER), OTHER, b'0'),
    forged(24, b'{"__metadata__":{"a":""}}'[:24]),
  ],
)
def test_a_forged_file_is_refused_before_memory_is_taken(tmp_path, content):
  path = tmp_path / 'net'
  path.write_bytes(content)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  with pytest.raises(ValueError, match='expected'):
    export.load(path)
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert after - before < 50_000  # KiB


@pytest.mark.parametrize('text', ['[]', '3', '{}', '{"form', '{"format": []}'])
def test_a_header_that_is_none_is_refused(tmp_path, text):
  content = json.dumps({'__metadata__': {'sparse-training': text}}).encode()
  (tmp_path / 'net').write_bytes(forged(len(content), content))
  with pytest.raises(ValueError, match='expected'):
    export.load(tmp_path / 'net')
