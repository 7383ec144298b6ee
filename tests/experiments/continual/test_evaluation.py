"""Fingerprints of logits, and evaluation in padded batches."""

import jax.numpy as jnp
import numpy as np

from experiments.continual import evaluation

VALUES = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def fingerprint(values):
  return int(evaluation.fingerprint(values, 0, jnp.ones(len(values))))


def test_any_single_bit_changes_the_fingerprint():
  before = fingerprint(VALUES)
  bits = VALUES.view(np.uint32)
  for place in np.ndindex(VALUES.shape):
    for bit in (0, 13, 22, 31):
      changed = bits.copy()
      changed[place] ^= np.uint32(1 << bit)
      assert fingerprint(changed.view(np.float32)) != before


def test_order_matters_to_the_fingerprint():
  assert fingerprint(VALUES[::-1]) != fingerprint(VALUES)


def test_padding_does_not_count_and_parts_add_up():
  padded = np.concatenate([VALUES, np.full((2, 3), np.nan, np.float32)])
  counts = np.array([1, 1, 1, 1, 1, 1, 0, 0], np.float32)
  parts = sum(
    evaluation.fingerprint(padded[i : i + 4], 3 * i, counts[i : i + 4])
    for i in (0, 4)
  )
  assert int(parts) == fingerprint(VALUES)


def test_parts_hold_every_row_once():
  rows = (np.arange(5), np.arange(7, 19))
  for own, part in zip(rows, evaluation.parts(rows, 4), strict=True):
    assert part.rows.shape == part.counts.shape == (3, 4)
    flat = np.asarray(part.rows).reshape(-1)
    np.testing.assert_array_equal(
      flat[np.asarray(part.counts).reshape(-1) > 0], own
    )
    assert part.num == -(-len(own) // 4)
