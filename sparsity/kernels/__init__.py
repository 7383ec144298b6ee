"""Products with a weight that exists at its active entries only, or masked.

Two implementations behind one interface: `xla` (pure JAX, any device) and
`native` (C++ for the CPU, compiled by `python -m sparsity.kernels.build`).
`describe()` says which is in use and why.

Unsupported: derivatives (`sparsity.matmul` and `sparsity.conv` have them),
feature groups, dilation. Under `vmap`, `native` makes one call per example.
Under jit with a sharded batch, every device computes the whole batch, because
XLA cannot partition the call; under `jax.shard_map` each computes its part.
"""

from sparsity.kernels.host import from_masks
from sparsity.kernels.products import conv
from sparsity.kernels.products import conv_dw
from sparsity.kernels.products import conv_dx
from sparsity.kernels.products import describe
from sparsity.kernels.products import implementation
from sparsity.kernels.products import use
from sparsity.kernels.structure import PIXEL
from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import make_window
from sparsity.kernels.structure import outputs_of

__all__ = [
  'PIXEL',
  'Structure',
  'conv',
  'conv_dw',
  'conv_dx',
  'describe',
  'from_masks',
  'implementation',
  'make_window',
  'outputs_of',
  'use',
]
