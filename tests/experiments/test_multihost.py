"""Placement, checksums, and a process alone; runs: tests/test_processes."""

import pytest

from experiments import multihost


@pytest.mark.parametrize(
  ('flags', 'expected'),
  [
    ((None, None, None, None), None),
    (('slurm', None, None, None), (None, None, None, 'slurm')),
    ((None, 'a:1', 3, 2), ('a:1', 3, 2, 'deactivate')),
  ],
)
def test_flags_say_where_a_process_is(flags, expected):
  assert multihost.placement(*flags) == expected


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (('auto', 'a:1', None, None), 'expected --distributed alone'),
    ((None, None, None, 0), 'or --coordinator, --process_count and'),
    ((None, 'a:1', 2, 2), 'less than --process_count=2, got 2'),
  ],
)
def test_flags_that_contradict_each_other_are_refused(flags, message):
  with pytest.raises(ValueError, match=message):
    multihost.placement(*flags)


def test_an_error_in_a_process_alone_is_raised_as_it_is():
  def fail():
    raise OSError('gone')

  with pytest.raises(OSError, match='gone'):
    multihost.in_first(fail)
  error = RuntimeError('Connection reset')
  assert multihost.explained(error) is error
