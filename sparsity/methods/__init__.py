"""Methods: each one rule for the one wrapper."""

from sparsity.methods.magnitude import magnitude
from sparsity.methods.static import static

__all__ = ['magnitude', 'static']
