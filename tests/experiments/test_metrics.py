import logging
import math
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX import proto

from experiments.common import metrics
from experiments.common import run

MEMBER = {'alpha': 2.0, 'seed': 0}


def write(writer, steps, member=None):
  for step in steps:
    writer.write(step, {'loss': 1 / (1 + step)}, member=member)


def events(folder: pathlib.Path):
  """Returns `(tag, step, value)` of every event file, in order of writing."""
  found = []
  for path in sorted(folder.glob('events.*'), key=lambda p: p.stat().st_mtime):
    content = path.read_bytes()
    while content:  # Length, its checksum, the event, its checksum.
      size = int.from_bytes(content[:8], 'little')
      event = proto.event_pb2.Event.FromString(content[12 : 12 + size])
      content = content[16 + size :]
      if event.HasField('session_log'):
        found.append(('purge', event.step, None))
      found += [
        (v.tag, event.step, v.simple_value) for v in event.summary.value
      ]
  return found


def test_rows_are_read_as_they_were_written(tmp_path):
  with metrics.Writer(tmp_path, None) as writer:
    writer.write(
      3,
      {
        'step': 1,
        'loss': np.float32(0.5),
        'accuracy': jnp.bfloat16(0.25),
        'curve': [1, math.nan],
        'split': 'test',
      },
      member=MEMBER,
    )
    writer.write(4, {'loss': -math.inf})
    # Flushed: another process sees the rows while the run goes on.
    first, second = metrics.read(tmp_path)
  assert math.isnan(first.pop('curve')[1])
  assert first == {
    'global_step': 3,
    'alpha': 2.0,
    'seed': 0,
    'step': 1,
    'loss': 0.5,
    'accuracy': 0.25,
    'split': 'test',
  }
  assert second == {'global_step': 4, 'loss': -math.inf}


def test_every_line_is_valid_json(tmp_path):
  with metrics.Writer(tmp_path, None) as writer:
    writer.write(0, {'loss': math.nan, 'text': 'two\nlines'})
  (line,) = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert line == '{"global_step": 0, "loss": "nan", "text": "two\\nlines"}'


@pytest.mark.parametrize(
  'tail',
  ['', '{"global_step": 9, "lo', '{"global_step": 5}', '\x00\x00\n'],
)
def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path, tail):
  for name in ('whole', 'resumed'):
    (tmp_path / name).mkdir()
  with metrics.Writer(tmp_path / 'whole', None) as writer:
    write(writer, range(12), MEMBER)
  with metrics.Writer(tmp_path / 'resumed', None) as writer:
    write(writer, range(9), MEMBER)
  path = tmp_path / 'resumed/metrics.jsonl'
  path.write_text(path.read_text() + tail)
  assert len(metrics.read(tmp_path / 'resumed')) == 9
  with metrics.Writer(tmp_path / 'resumed', 5) as writer:
    write(writer, range(6, 12), MEMBER)
  whole = (tmp_path / 'whole/metrics.jsonl').read_bytes()
  assert path.read_bytes() == whole


def test_without_a_checkpoint_the_file_begins_anew(tmp_path):
  for _ in range(2):
    with metrics.Writer(tmp_path, None) as writer:
      write(writer, range(3))
  assert [row['global_step'] for row in metrics.read(tmp_path)] == [0, 1, 2]


def test_a_broken_line_in_the_middle_is_named_and_nothing_is_lost(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  text = '{"global_step": 0}\n{"loss": 1}\n{"global_step": 2}\n'
  path.write_text(text)
  with pytest.raises(ValueError, match=r'metrics\.jsonl, line 2'):
    metrics.Writer(tmp_path, 0)
  with pytest.raises(ValueError, match=r'metrics\.jsonl, line 2'):
    metrics.read(tmp_path)
  assert path.read_text() == text


def test_a_write_that_fails_while_rows_are_dropped_keeps_the_file(
  tmp_path, monkeypatch
):
  with metrics.Writer(tmp_path, None) as writer:
    write(writer, range(3))
  before = (tmp_path / 'metrics.jsonl').read_bytes()

  def fail(*_):
    raise OSError('no space left')

  monkeypatch.setattr(run.os, 'fsync', fail)
  with pytest.raises(OSError, match='no space left'):
    metrics.Writer(tmp_path, 0)
  assert (tmp_path / 'metrics.jsonl').read_bytes() == before


@pytest.mark.parametrize(
  ('values', 'member'),
  [({'seed': 1}, MEMBER), ({'global_step': 1}, None), ({}, {'global_step': 1})],
)
def test_a_field_given_twice_is_an_error(tmp_path, values, member):
  with (
    metrics.Writer(tmp_path, None) as writer,
    pytest.raises(ValueError, match='each field once'),
  ):
    writer.write(0, values, member=member)
  assert metrics.read(tmp_path) == []


def test_tensorboard_gets_the_numbers_of_each_member_over_its_own_step(
  tmp_path,
):
  with metrics.Writer(tmp_path, None) as writer:
    values = {'step': 2, 'loss': np.float32(0.5), 'split': 'test', 'list': [1]}
    writer.write(102, values, member=MEMBER)
    writer.write_scalars(102, {'step': 2, 'rate': 7.0}, member=MEMBER)
    writer.write(102, {'loss': 0.25})
  board = tmp_path / 'tensorboard'
  assert events(board / 'alpha=2.0,seed=0') == [
    ('purge', 0, None),
    ('loss', 2, 0.5),
    ('rate', 2, 7.0),
  ]
  assert events(board) == [('purge', 0, None), ('loss', 102, 0.25)]
  assert len(metrics.read(tmp_path)) == 2


@pytest.mark.parametrize(
  ('resume_from', 'offset', 'purge'), [(105, 100, 6), (105, 200, 0)]
)
def test_tensorboard_forgets_what_is_written_again(
  tmp_path, resume_from, offset, purge
):
  with metrics.Writer(tmp_path, resume_from) as writer:
    writer.write(offset + 8, {'step': 8, 'loss': 0.5}, member=MEMBER)
  found = events(tmp_path / 'tensorboard/alpha=2.0,seed=0')
  assert found == [('purge', purge, None), ('loss', 8, 0.5)]


def test_a_nan_reaches_tensorboard_quietly(tmp_path, caplog):
  with (
    caplog.at_level(logging.WARNING),
    metrics.Writer(tmp_path, None) as writer,
  ):
    writer.write(0, {'loss': math.nan})
  assert not caplog.text
  assert math.isnan(events(tmp_path / 'tensorboard')[-1][2])
