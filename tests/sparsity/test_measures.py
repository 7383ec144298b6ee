"""Tests of `sparsity.measures`."""

import numpy as np
import pytest

from sparsity import measures


def test_overlap_is_the_share_of_the_first():
  a, b = np.array([1, 1, 1, 0], bool), np.array([1, 0, 0, 0], bool)
  assert measures.overlap(a, b) == pytest.approx(1 / 3)
  assert (
    measures.overlap([a, b], [a, a]) == measures.overlap(~(a | ~a), a) == 1.0
  )
  with pytest.raises(ValueError, match='at least one entry'):
    measures.density({})
