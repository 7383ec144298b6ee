"""Pruned networks on the CPU, computed from their active entries."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsity import kernels
from sparsity import select as select_lib
from sparsity.compact import packing

# Denser layers are faster as they are: measured, see benchmarks/compact.py.
MAX_DENSITY = 0.3


def compile_inference(
  apply: Callable[..., Any],
  weights: Any,
  masks: Any | None = None,
  *,
  max_density: float = MAX_DENSITY,
  select: select_lib.Predicate = select_lib.is_weight,
  implementation: str | None = None,
) -> Callable[..., Any]:
  """Returns `apply` with the weights of a pruned network, for the CPU.

  The network has to be of `sparsity.modules`' layers, or to use
  `sparsity.matmul` and `sparsity.conv`. It is compiled once for each shape of
  inputs.

  Example:
    >>> import haiku as hk
    >>> import sparsity
    >>> net = hk.without_apply_rng(
    ...   hk.transform(lambda x: sparsity.modules.Linear(2)(x)))
    >>> weights = {'linear': {'w': jnp.eye(4)[:, :2], 'b': jnp.zeros(2)}}
    >>> predict = compile_inference(net.apply, weights)
    >>> predict(jnp.arange(4.0)[None])
    Array([[0., 1.]], dtype=float32)

  Args:
    apply: pure function of weights and inputs.
    weights: a tree of arrays, zero where it is pruned or not.
    masks: a tree of boolean masks like `weights`, such as
      `sparsity.active_sets(state).forward`; None: where weights are not zero.
    max_density: layers with a larger share of active entries stay dense.
    select: which layers may be compact.
    implementation: of the kernels: 'native', 'xla' or 'reference'; None: see
      `sparsity.kernels.implementation`.

  Returns:
    A function of the inputs alone. Its `weights` are those it computes with.

  Raises:
    ValueError: If weights and masks do not match; from the first call, if a
      layer cannot be compact (names it: leave it out by `select`).
  """
  if masks is None:
    masks = jax.tree.map(lambda x: np.asarray(x) != 0, weights)
  if jax.tree.structure(masks) != jax.tree.structure(weights):
    raise ValueError(
      f'expected masks like the weights, {jax.tree.structure(weights)}, got '
      f'{jax.tree.structure(masks)}'
    )
  chosen = select_lib.selected_paths(weights, select)
  active = {
    path: np.asarray(mask)
    for path, mask in select_lib.pick(masks, chosen).items()
    if np.mean(np.asarray(mask)) <= max_density
  }
  packed = packing.pack(
    jax.tree.map(_zero_outside, weights, masks),
    select_lib.put(
      jax.tree.map(lambda x: np.ones(x.shape, bool), weights), active
    ),
  )
  # On one device, and bound to it: what is called with them runs there.
  packed = jax.device_put(packed, jax.local_devices(backend='cpu')[0])

  @jax.jit
  def run(weights, *args, **kwargs):
    with kernels.use(kernels.implementation(implementation)):
      return apply(weights, *args, **kwargs)

  predict = functools.partial(run, packed)
  predict.weights = packed
  return predict


def _zero_outside(x, mask):
  return jnp.where(mask, x, jnp.zeros_like(x))
