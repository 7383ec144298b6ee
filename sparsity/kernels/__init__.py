"""Products with a weight that exists at its active entries only, or masked.

Two implementations behind one interface: `xla` (pure JAX, any device) and
`native` (C++ for the CPU, compiled by `python -m sparsity.kernels.build`).
`describe()` says which is in use and why.

Unsupported: derivatives (`sparsity.matmul` and `sparsity.conv` have them),
feature groups, dilation. Under `vmap`, `native` makes one call per example.
Under jit with a sharded batch, every device computes the whole batch, because
XLA cannot partition the call; under `jax.shard_map` each computes its part.
"""

from sparsity.kernels.host import from_masks as from_masks
from sparsity.kernels.products import conv as conv
from sparsity.kernels.products import conv_dw as conv_dw
from sparsity.kernels.products import conv_dx as conv_dx
from sparsity.kernels.products import describe as describe
from sparsity.kernels.products import implementation as implementation
from sparsity.kernels.products import use as use
from sparsity.kernels.structure import PIXEL as PIXEL
from sparsity.kernels.structure import Structure as Structure
from sparsity.kernels.structure import make_window as make_window
from sparsity.kernels.structure import outputs_of as outputs_of
