"""Top-KAST: always sparse training (https://arxiv.org/abs/2106.03517)."""

from topkast.modules import Conv2D as Conv2D
from topkast.modules import Linear as Linear
from topkast.modules import sparsified as sparsified
from topkast.penalty import exploration_penalty as exploration_penalty
from topkast.transform import active_sets as active_sets
from topkast.transform import topkast as topkast
from topkast.transform import weights as weights
