"""Top-KAST: active sets A and B (https://arxiv.org/abs/2106.03517)."""

from topkast.penalty import exploration_penalty
from topkast.transform import active_sets
from topkast.transform import topkast
from topkast.transform import weights

__all__ = [
  'active_sets',
  'exploration_penalty',
  'topkast',
  'weights',
]
