"""Sparse training: active entries, methods, masked and compact storage."""

from sparsity import compact
from sparsity import flops
from sparsity import kernels
from sparsity import methods
from sparsity import modules
from sparsity import patterns
from sparsity.compact import CompactWeights
from sparsity.compact import active_sets
from sparsity.compact import compile_inference
from sparsity.compact import conv
from sparsity.compact import forward_weights
from sparsity.compact import grad
from sparsity.compact import matmul
from sparsity.compact import value_and_grad
from sparsity.counts import Counts
from sparsity.counts import make_counts
from sparsity.distributions import erdos_renyi
from sparsity.distributions import erdos_renyi_kernel
from sparsity.distributions import uniform
from sparsity.masked import MaskedWeights
from sparsity.masked import masked_weights
from sparsity.methods import gradual
from sparsity.methods import magnitude
from sparsity.methods import rigl
from sparsity.methods import saliency
from sparsity.methods import set_
from sparsity.methods import snip
from sparsity.methods import static
from sparsity.schedules import constant
from sparsity.schedules import cubic
from sparsity.schedules import every
from sparsity.schedules import every_to
from sparsity.schedules import one_shot
from sparsity.select import Predicate
from sparsity.select import all_of
from sparsity.select import any_of
from sparsity.select import is_any
from sparsity.select import is_weight
from sparsity.select import matching
from sparsity.select import none_of
from sparsity.state import ActiveSets
from sparsity.state import Refresh
from sparsity.state import Rule
from sparsity.state import SparseState
from sparsity.state import SparseTransformation
from sparsity.state import sparse_state
from sparsity.topk import density
from sparsity.topk import layer_keys
from sparsity.topk import nested_topk_masks
from sparsity.topk import num_kept
from sparsity.topk import overlap
from sparsity.topk import random_mask
from sparsity.topk import topk_mask
from sparsity.topk import topk_masks
from sparsity.wrapper import sparsify

__all__ = [
  'ActiveSets',
  'CompactWeights',
  'Counts',
  'MaskedWeights',
  'Predicate',
  'Refresh',
  'Rule',
  'SparseState',
  'SparseTransformation',
  'active_sets',
  'all_of',
  'any_of',
  'compact',
  'compile_inference',
  'constant',
  'conv',
  'cubic',
  'density',
  'erdos_renyi',
  'erdos_renyi_kernel',
  'every',
  'every_to',
  'flops',
  'forward_weights',
  'grad',
  'gradual',
  'is_any',
  'is_weight',
  'kernels',
  'layer_keys',
  'magnitude',
  'make_counts',
  'masked_weights',
  'matching',
  'matmul',
  'methods',
  'modules',
  'nested_topk_masks',
  'none_of',
  'num_kept',
  'one_shot',
  'overlap',
  'patterns',
  'random_mask',
  'rigl',
  'saliency',
  'set_',
  'snip',
  'sparse_state',
  'sparsify',
  'static',
  'topk_mask',
  'topk_masks',
  'uniform',
  'value_and_grad',
]
