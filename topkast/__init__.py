"""Top-KAST: always sparse training (https://arxiv.org/abs/2106.03517)."""

from topkast.modules import Conv2D
from topkast.modules import Linear
from topkast.modules import sparsified
from topkast.penalty import exploration_penalty
from topkast.transform import active_sets
from topkast.transform import topkast
from topkast.transform import weights

__all__ = [
  'Conv2D',
  'Linear',
  'active_sets',
  'exploration_penalty',
  'sparsified',
  'topkast',
  'weights',
]
