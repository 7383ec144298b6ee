"""Products with a weight of which only the active entries exist."""

from sparsity.kernels.choice import describe
from sparsity.kernels.choice import implementation
from sparsity.kernels.choice import use
from sparsity.kernels.products import conv
from sparsity.kernels.products import conv_dw
from sparsity.kernels.products import conv_dx
from sparsity.kernels.products import matmul
from sparsity.kernels.products import matmul_dw
from sparsity.kernels.products import matmul_dx
from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import check
from sparsity.kernels.structure import from_masks

__all__ = [
  'Structure',
  'check',
  'conv',
  'conv_dw',
  'conv_dx',
  'describe',
  'from_masks',
  'implementation',
  'matmul',
  'matmul_dw',
  'matmul_dx',
  'use',
]
