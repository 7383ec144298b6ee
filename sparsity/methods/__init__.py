"""Sparse methods, each a rule for `sparsity.sparsify`.

| method    | active fraction              | sets change                 |
|-----------|------------------------------|-----------------------------|
| magnitude | 1, from update `at` density  | once                        |
| gradual   | falls from 1 to density      | every `prune_every` to `end`|
| static    | density                      | never                       |
| snip      | density                      | never                       |
| set_      | density                      | every `refresh_every`       |
| rigl      | density                      | every `refresh_every`       |

Parameters that are not selected, or match `dense`, are always active.
Gradients outside the active set are read by `rigl` at a refresh, by the
saliency score of `magnitude` and `gradual` at a pruning, and by `saliency`
before training.
"""

from sparsity.methods.magnitude import gradual
from sparsity.methods.magnitude import magnitude
from sparsity.methods.rigl import rigl
from sparsity.methods.set import set_
from sparsity.methods.snip import saliency
from sparsity.methods.snip import snip
from sparsity.methods.static import static

__all__ = [
  'gradual',
  'magnitude',
  'rigl',
  'saliency',
  'set_',
  'snip',
  'static',
]
