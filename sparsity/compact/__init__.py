"""Compact storage: weights, products and training of active entries only."""

from sparsity.compact.conversion import CompactState as CompactState
from sparsity.compact.packing import check_model as check_model
from sparsity.compact.packing import compile_inference as compile_inference
from sparsity.compact.packing import pack as pack
from sparsity.compact.packing import unpack as unpack
from sparsity.compact.products import conv as conv
from sparsity.compact.products import matmul as matmul
from sparsity.compact.training import CompactTraining as CompactTraining
from sparsity.compact.training import active_sets as active_sets
from sparsity.compact.training import compact as compact
from sparsity.compact.training import forward_weights as forward_weights
from sparsity.compact.weights import CompactWeights as CompactWeights
from sparsity.compact.weights import Entries as Entries
from sparsity.compact.weights import grad as grad
from sparsity.compact.weights import is_compact as is_compact
from sparsity.compact.weights import num_bytes as num_bytes
from sparsity.compact.weights import value_and_grad as value_and_grad
from sparsity.compact.weights import values as values
