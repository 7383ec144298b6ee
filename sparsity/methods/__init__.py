"""Sparse methods, each a rule for `sparsity.sparsify`.

| method    | active fraction              | sets change                 |
|-----------|------------------------------|-----------------------------|
| magnitude | 1, from update `at` density  | once                        |
| gradual   | falls from 1 to density      | every `prune_every` to `end`|
| acdc      | 1 and density in turn        | every `phase_steps` to `end`|
| static    | density                      | never                       |
| snip      | density                      | never                       |
| set_      | density                      | every `refresh_every`       |
| rigl      | density                      | every `refresh_every`       |

Parameters that are not selected, or match `dense`, are always active.
Gradients outside the active set are read by `rigl` at a refresh, by the
saliency score of `magnitude` and `gradual` at a pruning, and by `saliency`
before training.
"""

from sparsity.methods.alternating import acdc as acdc
from sparsity.methods.fixed import saliency as saliency
from sparsity.methods.fixed import snip as snip
from sparsity.methods.fixed import static as static
from sparsity.methods.magnitude import gradual as gradual
from sparsity.methods.magnitude import magnitude as magnitude
from sparsity.methods.rewiring import rigl as rigl
from sparsity.methods.rewiring import set_ as set_
