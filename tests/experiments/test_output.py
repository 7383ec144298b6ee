import os
import pathlib
import subprocess
import sys

import pytest

from experiments import output

REPOSITORY = pathlib.Path(output.__file__).parents[1]
PROGRAM = """
import os, pathlib, sys
from experiments import output
output.protect()
print('naïve' * 100_000)
print('error', file=sys.stderr, flush=True)
path = pathlib.Path(sys.argv[1])
path.write_text('whole')
assert os.fstat(1).st_ino != path.stat().st_ino
"""


@pytest.mark.parametrize(
  'redirection',
  ['', '>&-', '2>&-', '<&- >&- 2>&-', '>/dev/full 2>/dev/full', '| true'],
)
def test_a_program_ends_well_whatever_becomes_of_its_output(
  tmp_path, redirection
):
  out = tmp_path / 'out'
  command = f'"{sys.executable}" -c "$PROGRAM" "{out}" {redirection}'
  ended = subprocess.run(
    ['bash', '-c', f'{command}; echo ended ${{PIPESTATUS[0]}}'],
    cwd=REPOSITORY,
    capture_output=True,
    env={**os.environ, 'PROGRAM': PROGRAM, 'PYTHONIOENCODING': 'ascii'},
    check=False,
  )
  assert ended.stdout.endswith(b'ended 0\n'), ended.stderr
  assert out.read_text() == 'whole'
  if not redirection:
    assert ended.stdout.startswith(b'na?vena?ve')
    assert ended.stderr == b'error\n'
