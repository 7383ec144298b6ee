import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsity import schedules

COUNTS = jnp.arange(40)


def values(schedule):
  """Returns the values of a schedule, the same for single calls and in jit."""
  one_by_one = np.array([schedule(count) for count in COUNTS])
  at_once = jax.jit(schedule)(COUNTS)
  np.testing.assert_allclose(one_by_one, at_once, rtol=1e-6)
  return one_by_one


def test_one_shot_falls_at_the_update_and_constant_stays():
  expected = np.where(np.arange(40) < 7, 1.0, 0.2).astype(np.float32)
  np.testing.assert_array_equal(values(schedules.one_shot(0.2, at=7)), expected)
  constant = values(schedules.constant(0.3))
  np.testing.assert_array_equal(constant, np.float32(0.3))


def test_cubic_is_the_formula_between_start_and_end():
  expected = []
  for t in range(40):
    t = min(max(t, 5), 25)
    expected.append(0.1 + (0.9 - 0.1) * (1 - (t - 5) / (25 - 5)) ** 3)
  found = values(schedules.cubic(0.1, start=5, end=25, initial_density=0.9))
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert found.dtype == np.float32


@pytest.mark.parametrize(
  ('interval', 'start', 'stop'),
  [(1, 0, 21), (3, 6, 21), (3, 6, 6), (50, 0, None)],
)
def test_every_is_due_at_multiples_after_start_up_to_stop(
  interval, start, stop
):
  expected = [
    t % interval == 0 and t > start and (stop is None or t <= stop)
    for t in range(40)
  ]
  found = values(schedules.every(interval, start=start, stop=stop))
  assert found.dtype == bool
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: schedules.constant(0.0), r'density in \(0, 1\], got 0\.0'),
    (lambda: schedules.cubic(2.0, start=0, end=1), r'density in \(0, 1\]'),
    (lambda: schedules.cubic(0.1, start=3, end=3), 'end >= 4, got 3'),
    (
      lambda: schedules.cubic(0.5, start=0, end=1, initial_density=0.4),
      r'density=0\.5 and initial_density=0\.4',
    ),
    (lambda: schedules.every(0), 'interval >= 1, got 0'),
    (lambda: schedules.every(1, start=4, stop=3), 'stop >= 4, got 3'),
  ],
)
def test_a_bad_option_is_an_error(make, message):
  with pytest.raises(ValueError, match=message):
    make()
