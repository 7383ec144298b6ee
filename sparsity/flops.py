"""FLOPs and bytes of a network, dense and sparse.

Conventions:
- Each multiply-add of a matrix multiplication or convolution is two FLOPs.
  Everything else is free (biases, normalization, activations, pooling, softmax,
  look-ups, the choice of active entries).
- Zero padding of an image counts; the zeros inserted by a transposed
  convolution do not.
- A sparse layer costs its density times its dense cost. Products without a
  parameter, such as attention scores, are always dense.
- A backward pass costs two forward passes: one for the gradient of the inputs,
  one for the gradient of the weights.
"""

from collections.abc import Callable
from collections.abc import Mapping
import itertools
import math
from typing import Any
from typing import NamedTuple

import jax

from sparsity import schedules
from sparsity import select as select_lib
from sparsity import tracing

Densities = Mapping[str, float]  # by path; layers not listed are dense


class Layer(NamedTuple):
  """A parameter and its cost."""

  path: str  # 'module/name'
  shape: tuple[int, ...]
  size: int  # entries
  flops: int  # of a dense forward pass


class Network(NamedTuple):
  """The cost of one forward pass."""

  layers: tuple[Layer, ...]  # all parameters, in tree order
  other: int  # FLOPs of products without a parameter


def count(fn: Callable[..., Any], params: Any, *args: Any) -> Network:
  """Returns the cost of `fn(params, *args)`, counted from its trace.

  Nothing is computed; shapes, as from `jax.eval_shape`, are enough. A product
  is attributed to the parameter from which one factor is derived entry by
  entry: cast, masked, raised to a power, reshaped, sliced or concatenated. If
  several parameters are concatenated or multiplied, its FLOPs are split in
  proportion to their entries. Loops count every iteration; a `jax.lax.cond`
  counts its most expensive branch.

  Example:
    >>> import haiku as hk
    >>> import jax.numpy as jnp
    >>> net = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(10)(x)))
    >>> images = jax.ShapeDtypeStruct((1, 784), jnp.float32)
    >>> params = jax.eval_shape(net.init, jax.random.key(0), images)
    >>> network = count(net.apply, params, images)
    >>> network.layers[1]
    Layer(path='linear/w', shape=(784, 10), size=7840, flops=15680)

  Arguments are data, except masks (boolean arrays) and random keys.

  Raises:
    ValueError: If there are products inside a `jax.lax.while_loop`, or inside
      an opaque operation.
  """
  jaxpr = jax.make_jaxpr(fn)(params, *args).jaxpr
  leaves = select_lib.path_leaves(params)
  origins = [
    tracing.Origin({path: float(math.prod(x.shape))}) for path, x in leaves
  ]
  origins += [
    tracing.origin_of_argument(variable.aval)
    for variable in jaxpr.invars[len(leaves) :]
  ]
  _, flops = tracing.count(jaxpr, origins)
  return Network(
    tuple(
      Layer(path, tuple(x.shape), math.prod(x.shape), flops[path])
      for path, x in leaves
    ),
    flops[None],
  )


def forward(network: Network, densities: Densities | None = None) -> float:
  """Returns the FLOPs of a forward pass: f_D dense, f_S with densities.

  Example:
    >>> network = Network((Layer('linear/w', (784, 10), 7840, 15680),), 0)
    >>> forward(network), forward(network, {'linear/w': 0.1})
    (15680.0, 1568.0)

  Raises:
    ValueError: If a density names no layer, or is outside [0, 1].
  """
  densities = densities or {}
  _check(network, densities)
  sparse = sum(
    densities.get(layer.path, 1.0) * layer.flops for layer in network.layers
  )
  return float(network.other + sparse)


def train(
  network: Network,
  forward_densities: Densities | None = None,
  backward_densities: Densities | None = None,
) -> float:
  """Returns the FLOPs of a training step, 2 f_A + f_B.

  The forward pass and the gradient of the inputs use A, the gradient of the
  weights is on B: Top-KAST. Without backward densities B is A, 3 f_S: static
  sparsity and SET. Without any densities it is dense, 3 f_D.

  Raises:
    ValueError: As for `forward`.
  """
  if backward_densities is None:
    backward_densities = forward_densities
  return 2 * forward(network, forward_densities) + forward(
    network, backward_densities
  )


def train_rigl(
  network: Network, densities: Densities, *, refresh_every: int
) -> float:
  """Returns the mean FLOPs of a step of RigL.

  (3 f_S T + 2 f_S + f_D) / (T + 1) with T = `refresh_every`: one dense gradient
  of the weights after every T sparse steps, until the end of training.

  Raises:
    ValueError: As for `forward`, or if `refresh_every` is less than 1.

  Reference:
    Evci et al., 2020, "Rigging the lottery: making all tickets winners".
    https://arxiv.org/abs/1911.11134
  """
  if refresh_every < 1:
    raise ValueError(f'expected refresh_every >= 1, got {refresh_every}')
  sparse, dense = forward(network, densities), forward(network)
  total = 3 * sparse * refresh_every + 2 * sparse + dense
  return total / (refresh_every + 1)


def train_pruned(
  network: Network, densities: Densities, *, unpruned: float
) -> float:
  """Returns the mean FLOPs of a step of dense-to-sparse training.

  Args:
    unpruned: fraction of the eventually pruned entries that is still present,
      as a mean over all steps; see `unpruned_gradual` and `unpruned_acdc`. For
      one-shot pruning it is the fraction of steps before the pruning.

  Raises:
    ValueError: As for `forward`, or if `unpruned` is outside [0, 1].
  """
  if not 0 <= unpruned <= 1:
    raise ValueError(f'expected unpruned in [0, 1], got {unpruned}')
  sparse, dense = forward(network, densities), forward(network)
  return 3 * (sparse + unpruned * (dense - sparse))


def unpruned_gradual(
  *, num_steps: int, start: int, end: int, prune_every: int
) -> float:
  """Returns `unpruned` of `train_pruned` for `sparsity.gradual`.

  The mean over all steps of (1 - (t - start) / (end - start))^3, where t is the
  last pruning.

  Example:
    >>> unpruned_gradual(num_steps=4, start=0, end=2, prune_every=1)
    0.28125

  Raises:
    ValueError: If `num_steps` or `prune_every` is less than 1, or not
      0 <= start < end.
  """
  if num_steps < 1 or prune_every < 1 or not 0 <= start < end:
    raise ValueError(
      'expected num_steps >= 1, prune_every >= 1 and 0 <= start < end, got '
      f'{num_steps}, {prune_every}, {start} and {end}'
    )
  times = [start, *range(start + prune_every, end, prune_every), end]
  total = min(start, num_steps)
  for time, until in itertools.pairwise([*times, max(end, num_steps)]):
    steps = max(0, min(until, num_steps) - time)
    total += steps * ((end - time) / (end - start)) ** 3
  return total / num_steps


def unpruned_acdc(
  *, num_steps: int, start: int, end: int, phase_steps: int
) -> float:
  """Returns `unpruned` of `train_pruned` for `sparsity.acdc`.

  The fraction of steps in dense phases, of training that ends after `end`.

  Example:
    >>> unpruned_acdc(num_steps=10, start=1, end=7, phase_steps=2)
    0.5

  Raises:
    ValueError: As in `sparsity.alternating`, or if `num_steps` is less than
      `end`.
  """
  schedules.alternating(end, phase_steps, start=start)  # raises for bad phases
  if num_steps < end:
    raise ValueError(f'expected num_steps >= end={end}, got {num_steps}')
  num_sparse = schedules.num_cycles(end, phase_steps, start=start) * phase_steps
  return (end - num_sparse) / num_steps


def num_bytes(
  size: int, num_kept: int, *, value_bytes: int = 4, index_bytes: int = 4
) -> int:
  """Returns the bytes of a layer in its smallest form.

  That is the active values with a bitmask or an index each, or all values.

  Example:
    >>> num_bytes(800, 800), num_bytes(800, 80), num_bytes(800, 8)
    (3200, 420, 64)

  Raises:
    ValueError: If not 0 <= num_kept <= size.
  """
  if not 0 <= num_kept <= size:
    raise ValueError(f'expected num_kept from 0 to {size}, got {num_kept}')
  where = min(-(-size // 8), num_kept * index_bytes)
  return min(size * value_bytes, num_kept * value_bytes + where)


def _check(network: Network, densities: Densities):
  paths = [layer.path for layer in network.layers]
  for path, density in densities.items():
    if path not in paths or not 0 <= density <= 1:
      raise ValueError(
        f'expected densities in [0, 1] of layers out of {paths}, got '
        f'{path}: {density}'
      )
