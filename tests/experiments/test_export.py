"""A trained network goes to a file and back; other bytes are refused."""

import json
import random as random_lib
import struct
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from safetensors import numpy as safetensors_numpy

from experiments import export
from experiments import rundir
from experiments.data import mnist
from experiments.models import lenet
from experiments.tasks import classification
from tests import mutations
from tests import oracles
from tests.experiments import small


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """The folder of a finished run, which trains compact weights."""
  folder = tmp_path_factory.mktemp('runs')
  config = small.image(storage='compact')
  small.train(config, folder / 'run', checkpoint_every=10)
  return folder


def run(workdir, out, *more):
  return export.main([f'--workdir={workdir}', f'--out={out}', *more])


def test_a_network_read_back_has_the_loss_of_the_run(runs, tmp_path):
  file = tmp_path / 'net.safetensors'
  assert run(runs / 'run', file) == 0
  exported = export.load(file)
  data = mnist.load(data_dir=None).test
  logits, _ = lenet.lenet(hidden=(16,), num_classes=10).apply(
    exported.weights, exported.state, None, data.inputs, False
  )
  loss = classification.cross_entropy(jnp.asarray(logits), data.labels)
  rows = (runs / 'run' / 'metrics.jsonl').read_text().splitlines()
  [row] = [x for x in map(json.loads, rows) if x['split'] == 'test']
  np.testing.assert_allclose(float(loss), row['loss'], rtol=1e-5)
  for layer, masks in exported.masks.items():
    active = exported.weights[layer]['w'] != 0
    assert not (active & ~masks['w']).any()
    assert masks['w'].sum() == round(0.2 * active.size)
  with safetensors.safe_open(file, 'numpy') as opened:
    header = json.loads(opened.metadata()['sparse-training'])
  assert header['densities']['linear_1/w'] == 0.2
  assert exported.labels == {}
  config = rundir.read_config(runs / 'run')
  assert exported.config == config
  assert (config['seed'], config['powerprop']['alpha']) == (3, 2.0)


@pytest.mark.parametrize(
  ('folder', 'more', 'message'),
  [
    ('run', ['--step=7'], 'one of the checkpoints [10, 20] in'),
    ('run', ['--task=1'], 'expected --task'),
    ('', [], 'choose one of:\n'),
    ('nowhere', [], 'expected a folder with config.json, got'),
  ],
)
def test_a_network_that_is_not_there_is_refused(
  runs, tmp_path, capsys, folder, more, message
):
  assert run(runs / folder, tmp_path / 'net', *more) == export.USER_ERROR
  error = capsys.readouterr().err
  assert error.startswith('experiments.export: ')
  assert message in error
  assert not (tmp_path / 'net').exists()


WEIGHTS = {
  'a/b': {'w': np.arange(12.0, dtype=np.float32).reshape(4, 3)},
  'c': {'b': np.zeros(3, np.float32)},
}
MASKS = {
  'a/b': {'w': np.arange(12).reshape(4, 3) % 2 == 0},
  'c': {'b': np.ones(3, bool)},
}


def save(path, masks=MASKS, state=None):
  network = export.Network(WEIGHTS, masks, state or {}, {'x': 1}, {'task': 2})
  export.save(path, network)


def test_batch_statistics_and_dense_networks_go_through(tmp_path):
  state = {'a/norm/~/mean_ema': {'average': jnp.arange(3.0)}}
  save(tmp_path / 'net', None, state=state)
  exported = export.load(tmp_path / 'net')
  assert exported.masks == {}
  assert exported.labels == {'task': 2}
  oracles.assert_same(exported.weights, WEIGHTS)
  oracles.assert_same(exported.state, state)


HEADER = {
  'format': export.FORMAT, 'config': {}, 'labels': {}, 'densities': {'b/w': 1},
}  # fmt: skip


@pytest.mark.parametrize(
  ('name', 'tensor', 'format_'),
  [
    ('masks/b/w', np.ones(3, bool), 9),
    ('masks/b/w', np.ones(4, bool), export.FORMAT),
    ('masks/b/w', np.ones(3, np.float32), export.FORMAT),
    ('masks/b/w', np.zeros(3, bool), export.FORMAT),
    ('other/w', np.ones(1), export.FORMAT),
  ],
)
def test_a_forged_file_is_refused(tmp_path, name, tensor, format_):
  path = tmp_path / 'net'

  def write(tensors, header):
    tensors = {'weights/b/w': np.zeros(3, np.float32), **tensors}
    crc32 = export.checksum(json.dumps(header), tensors)
    text = {'sparse-training': json.dumps(header), 'crc32': crc32}
    path.write_bytes(safetensors_numpy.save(tensors, text))

  write({'masks/b/w': np.ones(3, bool)}, HEADER)
  export.load(path)  # sound
  write({name: tensor}, {**HEADER, 'format': format_})
  with pytest.raises(ValueError, match=f'expected an exported .* {path}, but'):
    export.load(path)


def mutate(random, content):
  """Returns an exported file with bytes, or a value of its header, altered."""
  kind = random.randrange(5)
  if kind < 3:
    return mutations.damage(random, content)
  [length] = struct.unpack('<Q', content[:8])
  header = json.loads(content[8 : 8 + length])
  names = ['q', 'weights/q', 'masks/c/b']
  if kind == 3:
    header = mutations.edit(random, header, names)
  else:
    described = header['__metadata__']
    own = json.loads(described['sparse-training'])
    own = mutations.edit(random, own, names)
    described['sparse-training'] = json.dumps(own)
  text = json.dumps(header).encode()
  return struct.pack('<Q', len(text)) + text + content[8 + length :]


def test_500_altered_files_are_refused_or_hold_the_same(tmp_path):
  path, random = tmp_path / 'net', random_lib.Random(0)
  num_refused = num_same = 0
  save(path, state={'a/norm': {'mean': np.ones(3, np.float32)}})
  sound, expected = path.read_bytes(), export.load(path)
  for content in (b'', b'\x80\x04pickle', struct.pack('<Q', 2**62) + b'{}'):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'an exported network in {path}, but'):
      export.load(path)
  for _ in range(500):
    path.write_bytes(mutate(random, sound))
    tracemalloc.start()
    try:
      found = export.load(path)
    except ValueError as error:
      num_refused += str(path) in str(error)
    else:
      num_same += 1
      oracles.assert_same(found[:3], expected[:3])
      assert found[3:] == expected[3:]
    assert tracemalloc.get_traced_memory()[1] < 50 * len(sound) + 50_000
    tracemalloc.stop()
  assert num_refused + num_same == 500
  assert num_refused > 450


def test_out_follows_links_makes_folders_and_replaces_files_alone(
  runs, tmp_path, capsys
):
  (tmp_path / 'link').symlink_to(tmp_path / 'target')
  assert run(runs / 'run', tmp_path / 'link') == 0
  assert (tmp_path / 'link').is_symlink()
  assert export.load(tmp_path / 'target').config['seed'] == 3
  assert run(runs / 'run', tmp_path / 'new' / 'net') == 0
  for other in (tmp_path, '/dev/null'):
    assert run(runs / 'run', other) == 2
    assert 'which is not a file' in capsys.readouterr().err
