"""Inference with pruned networks on the CPU, from active entries only."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsity import kernels
from sparsity import select as select_lib
from sparsity.compact import packing

# Denser layers are faster dense; measured by benchmarks/compact.py.
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
  """Returns `apply` bound to the weights of a pruned network, for the CPU.

  The network has to use the layers of `sparsity.modules`, or `sparsity.matmul`
  and `sparsity.conv`. It is compiled once per input shape.

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
    weights: a tree of arrays; pruned entries need not be zero if masks are
      given.
    masks: a tree of boolean masks like `weights`, such as
      `sparsity.active_sets(state).forward`; None: where weights are nonzero.
    max_density: denser layers stay dense.
    select: predicate of the layers that may be compact.
    implementation: kernels to use: 'native' or 'xla'; None: see
      `sparsity.kernels.implementation`.

  Returns:
    A function of the inputs alone, whose attribute `weights` holds the packed
    weights.

  Raises:
    ValueError: If weights and masks do not match; on the first call, if a
      layer cannot be compact (names it: exclude it with `select`).
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
  # Committed to a CPU device, so that calls run there.
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
