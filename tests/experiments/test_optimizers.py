"""Schedules and optimizers against formulas; mistakes in their sections."""

import math

import pytest

from experiments import build
from experiments import optimizers

SCHEDULES = {
  'constant': (
    {'warmup_steps': 4},
    lambda step: min(1, (step + 1) / 4),
  ),
  'cosine': (
    {'warmup_steps': 2, 'num_steps': 10, 'final': 0.1},
    lambda step: min(1, (step + 1) / 2) * (
      0.1 + 0.9 * (1 + math.cos(math.pi * min(1, max(0, step - 2) / 8))) / 2
    ),
  ),
  'piecewise': (
    {'warmup_steps': 0, 'boundaries': (3, 7), 'factor': 0.5},
    lambda step: 0.5 ** ((step >= 3) + (step >= 7)),
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', SCHEDULES)
def test_a_schedule_has_its_factors(name):
  section, expected = SCHEDULES[name]
  schedule = build.build(optimizers.SCHEDULES, {'name': name, **section})
  for step in range(12):
    assert float(schedule(step)) == pytest.approx(expected(step), rel=1e-6)
