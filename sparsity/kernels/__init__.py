"""Products with a weight that exists at its active entries only.

Three implementations behind one interface: `reference` (densifies the weight),
`xla` (pure JAX, any device) and `native` (C++ for the CPU, compiled by
`python -m sparsity.kernels.build`). `describe()` says which is in use and why.

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
from sparsity.kernels.masked import dense_conv_dw
from sparsity.kernels.masked import masked_conv
from sparsity.kernels.masked import masked_conv_dx
from sparsity.kernels.products import conv
from sparsity.kernels.products import conv_dw
from sparsity.kernels.products import conv_dx
from sparsity.kernels.products import matmul
from sparsity.kernels.products import matmul_dw
from sparsity.kernels.products import matmul_dx
from sparsity.kernels.structure import BLOCK
from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import outputs_of
from sparsity.kernels.structure import strip_size

__all__ = [
  'BLOCK',
  'Structure',
  'check',
  'conv',
  'conv_dw',
  'conv_dx',
  'dense_conv_dw',
  'describe',
  'from_masks',
  'implementation',
  'masked_conv',
  'masked_conv_dx',
  'matmul',
  'matmul_dw',
  'matmul_dx',
  'outputs_of',
  'strip_size',
  'use',
]
