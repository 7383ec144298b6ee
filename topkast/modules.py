"""Top-KAST for Haiku: a context for any module, and two modules.

For programs that cannot pass weights explicitly. The parameters are those of
the plain modules, the sets are Haiku state, and the gradient of a parameter is
that of the masked weight on B, zero elsewhere.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import inspect
from typing import Any

import haiku as hk
import jax
from jax import lax
import jax.numpy as jnp

import sparsity
from sparsity import schedules
from sparsity import state as state_lib
from topkast import transform

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
  """Context in which Haiku modules use their parameters on A only.

  Wrap the call of a network in `hk.transform_with_state`:

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

  The state belongs to a module `topkast`: `count`, the number of calls with
  `refresh` so far, and the `sparsity.ActiveSets` of each layer by path. Call
  number c refreshes the sets from its parameters if c is a multiple of
  `refresh_every`, exactly when `topkast.topkast` refreshes them from the same
  parameters and with the same key. Trained by SGD the two agree at every step.

  Only the gradient is masked. Weight decay, momentum or Adam's moments still
  move entries outside B; where that matters, wrap the optimizer in
  `topkast.topkast` instead. Layers are independent: for `erdos_renyi_kernel`
  pass a density for each; `scope='global'` is not supported.

  Haiku runs outer getters first. With Powerpropagation put the
  reparameterization outside, so that theta is masked and ranked:
  `with powerprop.parameterize(alpha), topkast.sparsified(...)`.

  Arguments not listed are those of `topkast.topkast`.

  Args:
    forward_density: fraction of each layer in A, in (0, 1], or a mapping from
      path `'module/name'`; layers not listed stay dense.
    backward_density: fraction in B, likewise.
    refresh: True for a training call, which is counted and refreshes the sets
      when due; False uses the stored sets.

  Raises:
    ValueError: If an option is invalid, as in `topkast.topkast`; on exit, if no
      parameter was selected, or a density names none that was.
  """
  rule = transform.make_rule(exploration)
  is_due = schedules.every(refresh_every, stop=stop_refresh_at)
  paths = {}  # an ordered set of the selected parameters

  def layer_counts(path: str, w: jax.Array) -> sparsity.Counts:
    forward = _density_of(forward_density, path)
    backward = 1.0 if forward == 1 else _density_of(backward_density, path)
    return sparsity.make_counts(
      forward_density=forward,
      backward_density=backward,
      select=sparsity.is_any,
    )({path: w})

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
    paths[path] = None
    counts = layer_counts(path, w)
    if not counts.sizes:
      return next_getter(w)

    def choose():
      chosen = rule.init({path: lax.stop_gradient(w)}, counts, key)
      return sparsity.ActiveSets(chosen.forward[path], chosen.backward[path])

    return next_getter(_masked(w, *layers.active(path, choose, is_due_now)))

  with hk.custom_getter(getter):
    yield
  _check_used(paths, forward_density, backward_density)


class _Layers(hk.Module):
  """Holds the sets of one context, so that contexts do not share them."""

  def count(self, is_counted: bool) -> jax.Array:
    """Returns the number of counted calls before this one."""
    count = hk.get_state('count', [], jnp.int32, jnp.zeros)
    if is_counted:
      hk.set_state('count', count + 1)
    return count

  def active(self, path, choose, is_due) -> sparsity.ActiveSets:
    """Returns the sets of a layer, refreshed if `is_due`."""
    stored: Any = hk.get_state(path, [], bool, lambda *_: choose())
    if is_due is False or hk.running_init():
      return stored
    chosen = lax.cond(is_due, choose, lambda: stored)
    hk.set_state(path, chosen)
    return chosen


_OPTIONS = [
  name
  for name in inspect.signature(sparsified).parameters
  if name not in ('refresh', 'select')
]


class _Sparsified:
  """Mixin that calls the module within `sparsified(...)`."""

  def __init__(self, *args, **kwargs):
    self.options = {
      name: kwargs.pop(name) for name in _OPTIONS if name in kwargs
    }
    super().__init__(*args, **kwargs)

  def __call__(self, *args, refresh: bool, **kwargs):
    with sparsified(
      **self.options, refresh=refresh, select=lambda _, name, __: name == 'w'
    ):
      return super().__call__(*args, **kwargs)  # type: ignore[misc]


class Linear(_Sparsified, hk.Linear):  # type: ignore[misc]
  """`hk.Linear` that uses `w` on A only.

  Takes the keyword arguments of `sparsified`; `refresh` is given to the call.

  Example:
    >>> net = hk.transform_with_state(lambda x: Linear(
    ...   10, forward_density=0.1, backward_density=0.2)(x, refresh=True))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 784)))
    >>> int(state['topkast']['linear/w'].backward.sum())
    1568
  """


class Conv2D(_Sparsified, hk.Conv2D):  # type: ignore[misc]
  """`hk.Conv2D` that uses `w` on A only; see `Linear`."""


@jax.custom_jvp
def _masked(w: jax.Array, forward: jax.Array, backward: jax.Array) -> jax.Array:
  """Returns w on A, zero elsewhere, with derivative one on B."""
  del backward
  return state_lib.masked(forward, w)


@_masked.defjvp
def _masked_jvp(primals, tangents):
  w, forward, backward = primals
  return _masked(w, forward, backward), state_lib.masked(backward, tangents[0])


def _density_of(density: Density, path: str) -> float:
  return density.get(path, 1.0) if isinstance(density, Mapping) else density


def _check_used(paths, *densities: Density) -> None:
  if not paths:
    raise ValueError(
      'expected selected parameters within sparsified, got none: put it '
      'around the call of a network, not its construction'
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
