"""Methods: each one rule for the one wrapper.

| method    | active, and so moved          | changes                      |
|-----------|-------------------------------|------------------------------|
| magnitude | all; from `at` on the density | once                         |
| gradual   | all; less and less            | each `prune_every` to `end`  |
| static    | the density                   | never                        |
| snip      | the density                   | never                        |
| set_      | the density                   | each `refresh_every`         |
| rigl      | the density                   | each `refresh_every`         |

What is not selected, or matches `dense`, is always active.
Gradients are read beyond what is moved by `rigl` when its sets change, by the
saliency score of `magnitude` and `gradual` when they prune, and by `saliency`
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
