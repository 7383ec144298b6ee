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
    (lambda: schedules.every(0), 'interval >= 1, got 0'),
    (lambda: schedules.every(1, start=4, stop=3), 'stop >= 4, got 3'),
  ],
)
def test_a_bad_option_is_an_error(make, message):
  with pytest.raises(ValueError, match=message):
    make()
