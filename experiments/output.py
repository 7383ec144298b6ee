"""Standard output and error that nothing can fail on."""

import io
import os
import sys
from typing import Any


class _Dropping(io.FileIO):
  """Drops what cannot be written: the pipe is closed, the disk full."""

  def write(self, data: Any) -> int | None:
    try:
      return super().write(data)
    except OSError:
      return len(data)


def protect() -> None:
  """Makes prints drop what they cannot write or encode.

  Closed streams become the null device, so that no file takes their numbers.
  """
  if sys.stdin is None:
    os.open(os.devnull, os.O_RDONLY)
  for name in ('stdout', 'stderr'):
    stream, encoding = getattr(sys, name), 'utf-8'
    if stream is None:
      number = os.open(os.devnull, os.O_WRONLY)
    else:
      number, encoding = stream.fileno(), stream.encoding
    file = io.BufferedWriter(_Dropping(number, 'w', closefd=False))
    text = io.TextIOWrapper(
      file, encoding=encoding, errors='replace', line_buffering=True
    )
    setattr(sys, name, text)
