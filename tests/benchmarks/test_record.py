"""Records of benchmarks."""

from benchmarks import record


def write(folder, figures, arguments=()):
  made = record.Record('made', arguments)
  for case, figure, value in figures:
    made.add(case, figure, value, 'ms', 3)
  made.write(folder)


def test_a_value_is_recorded_with_its_setting(tmp_path):
  write(tmp_path, [('a', 'time', 1 / 3)], ['--quick', '--record=anywhere'])
  [row] = record.read(tmp_path / 'made.csv').itertuples(index=False)
  assert (row.case, row.figure) == ('a', 'time')
  assert (row.value, row.unit, row.rounds) == ('0.333333', 'ms', '3')
  assert row.command == 'python -m benchmarks.made --quick'
  assert all(row)


def test_a_part_replaces_its_own_lines(tmp_path):
  path = tmp_path / 'made.csv'
  write(tmp_path, [('a', 'time', 1), ('a', 'ratio', 2), ('b', 'time', 3)])
  before = path.read_text().splitlines()
  write(tmp_path, [('a', 'ratio', 4), ('c', 'time', 5)], ['--only=a'])
  after = path.read_text().splitlines()
  assert [after[i] for i in (0, 1, 3)] == [before[i] for i in (0, 1, 3)]
  assert after[2].startswith('a,ratio,4,ms,3,python -m benchmarks.made --only=')
  assert after[4].startswith('c,time,5,')
