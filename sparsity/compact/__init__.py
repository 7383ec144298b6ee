"""Compact storage: weights, products and training of active entries only."""

from sparsity.compact.conversion import CompactState
from sparsity.compact.packing import check_model
from sparsity.compact.packing import compile_inference
from sparsity.compact.packing import pack
from sparsity.compact.packing import unpack
from sparsity.compact.products import conv
from sparsity.compact.products import matmul
from sparsity.compact.training import CompactTraining
from sparsity.compact.training import active_sets
from sparsity.compact.training import compact
from sparsity.compact.training import forward_weights
from sparsity.compact.weights import CompactWeights
from sparsity.compact.weights import Entries
from sparsity.compact.weights import grad
from sparsity.compact.weights import is_compact
from sparsity.compact.weights import num_bytes
from sparsity.compact.weights import value_and_grad
from sparsity.compact.weights import values

__all__ = [
  'CompactState',
  'CompactTraining',
  'CompactWeights',
  'Entries',
  'active_sets',
  'check_model',
  'compact',
  'compile_inference',
  'conv',
  'forward_weights',
  'grad',
  'is_compact',
  'matmul',
  'num_bytes',
  'pack',
  'unpack',
  'value_and_grad',
  'values',
]
