"""Which examples a step sees."""

import numpy as np
import pytest

from experiments.continual import training

ROWS = (np.array([3, 5, 8, 9]), np.array([0, 5, 7]), np.array([1, 2, 4, 6, 8]))


def choose(task, **options):
  options = {
    'order_seed': 3, 'batch_size': 3, 'first_step': 0, 'num_steps': 4,
    **options,
  }  # fmt: skip
  return training.choose(ROWS, task=task, **options)


def test_an_epoch_of_all_tasks_has_each_example_of_each_once():
  rows, tasks = choose(None)  # 12 of 4 steps of 3
  seen = sorted(zip(tasks.reshape(-1), rows.reshape(-1), strict=True))
  expected = [(t, r) for t, own in enumerate(ROWS) for r in own]
  assert seen == expected


def test_an_epoch_of_a_task_has_its_examples_and_no_others():
  rows, tasks = choose(2, batch_size=5, num_steps=2)
  assert tasks.tolist() == [2, 2]
  for batch in rows:
    assert sorted(batch) == ROWS[2].tolist()
  assert rows[0].tolist() != rows[1].tolist()


@pytest.mark.parametrize('task', [None, 0])
def test_steps_are_the_same_in_parts(task):
  whole = choose(task)
  first, second = (
    choose(task, num_steps=1),
    choose(task, first_step=1, num_steps=3),
  )
  for one, *parts in zip(whole, first, second, strict=True):
    np.testing.assert_array_equal(one, np.concatenate(parts))


def test_seeds_tasks_and_phases_have_orders_of_their_own():
  seeds = {
    training.order_seed(seed, task, phase)
    for seed in range(3)
    for task in range(10)
    for phase in range(2)
  }
  assert len(seeds) == 60
