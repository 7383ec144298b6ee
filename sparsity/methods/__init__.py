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

from sparsity.methods.magnitude import gradual as gradual
from sparsity.methods.magnitude import magnitude as magnitude
from sparsity.methods.rigl import rigl as rigl
from sparsity.methods.set import set_ as set_
from sparsity.methods.snip import saliency as saliency
from sparsity.methods.snip import snip as snip
from sparsity.methods.static import static as static
