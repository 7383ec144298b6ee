"""Products with a weight that exists at its active entries only, or masked.

Two implementations behind one interface: `xla` (pure JAX, any device) and
`native` (C++ for the CPU, compiled by `python -m sparsity.kernels.build`).
`describe()` says which is in use and why.

Unsupported: derivatives (`sparsity.matmul` and `sparsity.conv` have them),
feature groups, dilation. Under `vmap`, `native` makes one call per example.
Under jit with a sharded batch, every device computes the whole batch, because
XLA cannot partition the call; under `jax.shard_map` each computes its part.
"""

from sparsity.kernels.choice import describe
from sparsity.kernels.choice import implementation
from sparsity.kernels.choice import use
from sparsity.kernels.layout import check
from sparsity.kernels.layout import from_masks
from sparsity.kernels.products import conv
from sparsity.kernels.products import conv_dw
from sparsity.kernels.products import conv_dx
from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import outputs_of

__all__ = [
  'Structure',
  'check',
  'conv',
  'conv_dw',
  'conv_dx',
  'describe',
  'from_masks',
  'implementation',
  'outputs_of',
  'use',
]
