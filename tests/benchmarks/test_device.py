"""The check of a device, with tiny shapes."""

import csv

import jax.numpy as jnp
import pytest

from benchmarks import device
from benchmarks import rows


def test_every_case_runs_and_is_right(tmp_path):
  path = tmp_path / 'device.csv'
  found = device.main(['--tiny', '--minutes=60', f'--out={path}'])
  assert [row['problem'] for row in found] == [''] * len(found)
  cases = {row['case'] for row in found}
  assert {'layer, Adam step', 'enwik8 base, step', 'ResNet-50, step'} < cases
  errors = [row for row in found if row['error'] != '']
  assert len(errors) == 8
  assert all(row['error'] < rows.TOLERANCES['bfloat16'] for row in errors)
  for case in cases:
    same = [row for row in found if row['case'] == case]
    assert same[0]['ratio'] == 1
    for row in same:
      assert row['ratio'] * same[0]['ms'] == pytest.approx(row['ms'])
  with open(path, newline='') as file:
    written = list(csv.DictReader(file))
  assert [row['way'] for row in written] == [row['way'] for row in found]
  assert all(row['device'] and row['jax'] for row in written)


def fail():
  raise RuntimeError('no kernel\nof this kind')


def program(number, expected):
  x = jnp.full(4, number)
  return lambda: rows.Program(lambda x: x, (x,), expected=jnp.full(4, expected))


def test_a_failure_a_wrong_result_and_the_deadline_are_rows():
  table = rows.Table(60)
  table.add('a', 'fails', fail)
  table.add('a', 'wrong', program(1.0, 1.5))
  table.add('a', 'right', program(1.0, 1.0))
  table.add('a', 'nan', program(jnp.nan, 1.0))
  assert table.rows[0]['problem'] == 'RuntimeError: no kernel'
  assert table.rows[1]['problem'] == 'wrong: error over 0.01 in float32'
  assert table.rows[1]['error'] == pytest.approx(1 / 3)
  assert (table.rows[2]['problem'], table.rows[2]['error']) == ('', 0)
  assert table.rows[3]['problem'].startswith('wrong')
  assert table.rows[2]['ratio'] == ''  # the first row of the case failed
  late = rows.Table(-1)
  late.add('a', 'late', fail)
  assert late.rows[0]['problem'] == 'TimeoutError: not run, out of time'
