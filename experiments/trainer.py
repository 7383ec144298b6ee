"""Stand-in until the lead's module is merged."""

from typing import NamedTuple


class Outcome(NamedTuple):
  """Stand-in."""

  status: str
  step: int
  seconds: float
  signal: int | None
  message: str


def train(task, seed, workdir, on_progress):
  """Stand-in."""
  raise NotImplementedError


def evaluate(task, seed, workdir):
  """Stand-in."""
  raise NotImplementedError
