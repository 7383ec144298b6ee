import math
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from experiments import metrics
from experiments import rundir


def write(workdir, steps, resume_from=-1):
  with metrics.Writer(workdir, resume_from) as writer:
    for step in steps:
      writer.write(step, {'split': 'train', 'loss': 1 / (1 + step)})


def events(workdir: pathlib.Path):
  """Returns `(tag, step, value)` of all events, in TensorBoard's order."""
  found = []
  for path in sorted((workdir / 'tensorboard').iterdir()):
    content = path.read_bytes()
    versions = []
    while content:  # length, its checksum, event, its checksum
      size = int.from_bytes(content[:8], 'little')
      data, content = content[12 : 12 + size], content[16 + size :]
      event = event_pb2.Event.FromString(data)
      versions.append(event.file_version)
      if event.HasField('session_log'):
        assert event.session_log.status == event_pb2.SessionLog.START
        found.append(('purge', event.step, None))
      values = event.summary.value
      found += [(value.tag, event.step, value.simple_value) for value in values]
    # TensorBoard purges by START events from version 2 on.
    assert versions[0] == 'brain.Event:2'
  return found


def test_rows_are_read_as_they_were_written(tmp_path):
  row = {
    'split': 'test',
    'loss': np.float32(0.5),
    'accuracy': jnp.bfloat16(0.25),
    'curve': [1, math.nan],
  }
  with metrics.Writer(tmp_path, -1) as writer:
    writer.write(3, row)
    writer.write(4, {'loss': -math.inf, 'text': 'two\nlines'})
    # Flushed: another process reads the rows during the run.
    first, second = metrics.read(tmp_path)
  last = (tmp_path / metrics.FILE).read_text().splitlines()[1]
  assert last == '{"step": 4, "loss": "-inf", "text": "two\\nlines"}'
  assert math.isnan(first.pop('curve')[1])
  assert first == {'step': 3, 'split': 'test', 'loss': 0.5, 'accuracy': 0.25}
  assert second == {'step': 4, 'loss': -math.inf, 'text': 'two\nlines'}


@pytest.mark.parametrize(
  'tail', ['', '{"step": 9, "lo', '{"step": 5}', '\x00\x00\n']
)
def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path, tail):
  whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
  whole.mkdir()
  resumed.mkdir()
  write(whole, range(12))
  write(resumed, range(9))
  path = resumed / metrics.FILE
  path.write_text(path.read_text() + tail)
  assert len(metrics.read(resumed)) == 9
  write(resumed, range(6, 12), resume_from=5)
  assert path.read_bytes() == (whole / metrics.FILE).read_bytes()


def test_a_broken_line_in_the_middle_is_named_and_nothing_is_lost(tmp_path):
  path = tmp_path / metrics.FILE
  text = '{"step": 0}\n{"loss": 1}\n{"step": 2}\n'
  path.write_text(text)
  for function in (metrics.read, lambda folder: metrics.Writer(folder, 0)):
    with pytest.raises(rundir.FolderError, match=r'metrics\.jsonl, line 2'):
      function(tmp_path)
  assert path.read_text() == text


@pytest.mark.parametrize('content', [None, '', '{"step": 1}\n'])
def test_rows_that_are_gone_are_told(tmp_path, caplog, content):
  write(tmp_path, [1, 2, 3])
  (tmp_path / metrics.FILE).unlink()
  if content is not None:
    (tmp_path / metrics.FILE).write_text(content)
  write(tmp_path, [3], resume_from=2)
  first = 2 if content else 1
  assert f'has no rows of steps {first} to 2: they were deleted' in caplog.text
  lost = {'step': 2, 'split': 'lost', 'first': first}
  assert lost in metrics.read(tmp_path)
  caplog.clear()
  write(tmp_path, [3], resume_from=2)  # told once
  assert not caplog.text


def test_tensorboard_forgets_the_steps_that_are_written_again(tmp_path):
  write(tmp_path, [1, 3])
  write(tmp_path, [3], resume_from=1)
  write(tmp_path, [3], resume_from=1)
  again = [('purge', 2, None), ('train/loss', 3, 0.25)]
  assert events(tmp_path) == [
    ('purge', 0, None), ('train/loss', 1, 0.5), ('train/loss', 3, 0.25),
    *again, *again,
  ]  # fmt: skip
