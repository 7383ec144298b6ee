"""Products with a weight of which only the active entries exist."""

from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import check
from sparsity.kernels.structure import from_masks

__all__ = ['Structure', 'check', 'from_masks']
