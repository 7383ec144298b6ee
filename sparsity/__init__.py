"""Which entries are active: selection, masks, schedules, the wrapper."""

from sparsity.select import all_of
from sparsity.select import any_of
from sparsity.select import is_any
from sparsity.select import is_weight
from sparsity.select import matching
from sparsity.select import none_of

__all__ = [
  'all_of',
  'any_of',
  'is_any',
  'is_weight',
  'matching',
  'none_of',
]
