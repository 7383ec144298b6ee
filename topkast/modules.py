"""Top-KAST as Haiku state: a context for any module, and two modules.

For programs that cannot pass weights by hand. Parameters are those of the plain
modules, the sets are Haiku state, and the gradient with respect to a parameter
is dL/dalpha on B and zero elsewhere.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib

import haiku as hk
import jax
from jax import lax
import jax.numpy as jnp

import sparsity
from sparsity import schedules
from topkast import sets

Density = float | Mapping[str, float]


@contextlib.contextmanager
def sparsified(
  *,
  forward_density: Density,
  backward_density: Density,
  refresh: bool,
  refresh_every: int = 1,
  stop_refresh_at: int | None = None,
  exploration: str = 'topk',
  seed: int = 0,
  select: sparsity.Predicate = sparsity.is_weight,
) -> Iterator[None]:
  """Within it, any Haiku module computes with its parameters on A.

  Around the call of a network in `hk.transform_with_state`:

  Example:
    >>> def forward(x, is_training):
    ...   net = hk.nets.MLP([300, 10])
    ...   with sparsified(
    ...     forward_density=0.1, backward_density=0.2, refresh=is_training
    ...   ):
    ...     return net(x)
    >>> net = hk.transform_with_state(forward)
    >>> images = jnp.ones((1, 784))
    >>> _, state = net.init(jax.random.key(0), images, is_training=True)
    >>> int(state['topkast']['mlp/~/linear_0/w'].forward.sum())
    23520

  The state is that of a module `topkast`: `count`, the calls with `refresh`
  made so far, and the `sparsity.ActiveSets` of each layer by its path. Call
  number c chooses the sets from the parameters it is given if c is a multiple
  of `refresh_every`, which is when `topkast.topkast` would have chosen them
  from the same parameters, and with the same key: trained by SGD the two are
  equal at every step.

  Only the gradient is masked. What an optimizer adds, weight decay, momentum or
  Adam's moments, moves what is outside B: where that matters wrap the optimizer
  in `topkast.topkast` instead. Nor does a layer know the others: for
  `erdos_renyi_kernel` pass the densities of each, `scope='global'` there is
  none.

  Haiku runs outer getters first, so with Powerpropagation the
  reparameterization goes outside, and what is masked and ranked is theta:
  `with powerprop.parameterize(alpha), topkast.sparsified(...)`.

  Args:
    forward_density: share of a layer in A, in (0, 1], or shares by path
      `'module/name'`; layers not named stay dense.
    backward_density: share in B, likewise.
    refresh: whether this is a training call, which is counted and refreshes the
      sets when due; others, such as evaluation, use the sets that are stored.
    refresh_every: training calls between refreshes.
    stop_refresh_at: the last call at which the sets may change; None: never.
    exploration: how B without A is chosen: 'topk' or 'random'.
    seed: of random exploration.
    select: which parameters may be sparse.

  Raises:
    ValueError: If an option is wrong, as in `topkast.topkast`; at the end, if
      no parameter used within was selected, or a density named none.

  Reference:
    Jayakumar et al., 2020, "Top-KAST: Top-K always sparse training".
    https://arxiv.org/abs/2106.03517
  """
  sets.check_exploration(exploration)
  is_due = schedules.every(refresh_every, stop=stop_refresh_at)
  make_counts = {}

  def layer_counts(path: str, w: jax.Array) -> sparsity.Counts:
    if path not in make_counts:
      forward = _density_of(forward_density, path)
      make_counts[path] = sparsity.make_counts(
        forward_density=forward,
        backward_density=(
          1.0 if forward == 1 else _density_of(backward_density, path)
        ),
        select=sparsity.is_any,
      )
    return make_counts[path]({path: w})

  layers = _Layers(name='topkast')
  count = layers.count(refresh)
  key = jax.random.fold_in(jax.random.key(seed), count)
  is_due_now = (count == 0) | is_due(count) if refresh else False

  def getter(next_getter, w, context):
    path = context.full_name
    value = jax.ShapeDtypeStruct(
      tuple(context.original_shape), context.original_dtype
    )
    if not select(context.module_name, context.name, value):
      return next_getter(w)
    counts = layer_counts(path, w)
    if not counts.sizes:
      return next_getter(w)

    def choose():
      chosen = sets.choose(
        {path: lax.stop_gradient(w)}, counts, key, exploration
      )
      return sparsity.ActiveSets(chosen.forward[path], chosen.backward[path])

    return next_getter(_masked(w, *layers.active(path, choose, is_due_now)))

  with hk.custom_getter(getter):
    yield
  _check_used(make_counts, forward_density, backward_density)


class _Layers(hk.Module):
  """Holds the sets of all layers, so that contexts never share theirs."""

  def count(self, is_counted: bool) -> jax.Array:
    """Returns the number of calls before this one."""
    count = hk.get_state('count', [], jnp.int32, jnp.zeros)
    if is_counted:
      hk.set_state('count', count + 1)
    return count

  def active(self, path, choose, is_due) -> sparsity.ActiveSets:
    """Returns the sets of a layer, chosen anew if `is_due`."""
    stored = hk.get_state(path, [], bool, lambda *_: choose())
    if is_due is False or hk.running_init():
      return stored
    chosen = lax.cond(is_due, choose, lambda: stored)
    hk.set_state(path, chosen)
    return chosen


class _Sparsified:
  """Mixin: the call of the module is within `sparsified(...)`."""

  def __init__(
    self,
    *args,
    forward_density: float,
    backward_density: float,
    refresh_every: int = 1,
    stop_refresh_at: int | None = None,
    exploration: str = 'topk',
    seed: int = 0,
    **kwargs,
  ):
    super().__init__(*args, **kwargs)
    self.options = {
      'forward_density': forward_density,
      'backward_density': backward_density,
      'refresh_every': refresh_every,
      'stop_refresh_at': stop_refresh_at,
      'exploration': exploration,
      'seed': seed,
    }

  def __call__(self, *args, refresh: bool, **kwargs):
    with sparsified(
      **self.options, refresh=refresh, select=lambda _, name, __: name == 'w'
    ):
      return super().__call__(*args, **kwargs)


class Linear(_Sparsified, hk.Linear):
  """`hk.Linear` of which the network sees `w` on A.

  The keyword arguments are those of `sparsified`, `refresh` that of the call.

  Example:
    >>> net = hk.transform_with_state(lambda x: Linear(
    ...   10, forward_density=0.1, backward_density=0.2)(x, refresh=True))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 784)))
    >>> int(state['topkast']['linear/w'].backward.sum())
    1568

  Reference:
    Jayakumar et al., 2020, "Top-KAST: Top-K always sparse training".
    https://arxiv.org/abs/2106.03517
  """


class Conv2D(_Sparsified, hk.Conv2D):
  """`hk.Conv2D` of which the network sees `w` on A; see `Linear`."""


@jax.custom_jvp
def _masked(w: jax.Array, forward: jax.Array, backward: jax.Array) -> jax.Array:
  """Returns w on A, zero elsewhere; its derivative is one on B."""
  del backward
  return jnp.where(forward, w, jnp.zeros_like(w))


@_masked.defjvp
def _masked_jvp(primals, tangents):
  w, forward, backward = primals
  tangent = tangents[0]
  return (
    _masked(w, forward, backward),
    jnp.where(backward, tangent, jnp.zeros_like(tangent)),
  )


def _density_of(density: Density, path: str) -> float:
  return density.get(path, 1.0) if isinstance(density, Mapping) else density


def _check_used(paths, *densities: Density) -> None:
  """Raises if nothing was selected, or a key of `densities` was not."""
  if not paths:
    raise ValueError(
      'expected parameters to be used within sparsified, but none was '
      'selected: put it around the call of a network, not its construction'
    )
  for density in densities:
    if isinstance(density, Mapping) and (
      unknown := sorted({*density} - {*paths})
    ):
      listing = '\n  '.join(paths)
      raise ValueError(
        f'expected densities of selected parameters, got {unknown}; selected '
        f'are:\n  {listing}'
      )
