"""The wrapper that makes any optimizer sparse by a rule.

A method adds a `Rule`: the initial sets, and the next ones. All else is shared.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsity import counts as counts_lib
from sparsity import distributions
from sparsity import drift
from sparsity import entering
from sparsity import masked
from sparsity import schedules
from sparsity import select
from sparsity import state as state_lib
from sparsity import steps
from sparsity import topk
from sparsity.state import ActiveSets
from sparsity.state import SparseState
from sparsity.state import SparseTransformation


def sparsify(
  inner: optax.GradientTransformation,
  rule: state_lib.Rule,
  make_counts: Callable[[Any], counts_lib.Counts],
  *,
  is_due: schedules.Event,
  warmup_entering: int | None = None,
  explore_scale: float | None = None,
  seed: int = 0,
) -> SparseTransformation:
  """Returns `inner` restricted to the active sets of `rule`.

  Each update masks gradients and parameters to B, so that decay and norms are
  over B alone, applies `inner`, and masks its updates again. When `is_due`, the
  rule chooses new sets from `params + updates`, the parameters of the next
  step. It must therefore be the outermost transformation, or see `chain`:
  `update` raises if the parameters are not those that it expects, and under
  jit makes the updates NaN. `optax.MultiSteps`, `apply_if_finite`, `masked`
  and `partition` work on either side.

  While an entry is outside B its optimizer state is as `inner.init` makes it.
  A step count that all entries share goes on; `sparsity.adam` has one for each
  entry, so that those that return are updated as by a fresh Adam. Statistics
  not kept per entry (Adafactor's rows and columns) are left alone. `inner.init`
  gets parameters masked to B.

  A link of `inner` finds the sets in `sparsity.restriction()`.

  Args:
    rule: the method. With `steps=False` a refresh leaves `inner` untouched.
    make_counts: maps parameters to the number of active entries by layer.
    is_due: event after whose updates the sets are refreshed.
    warmup_entering: updates over which those of an entry that becomes active
      rise to their full size, at the start too; at most 255; None: 0.
    explore_scale: factor on the updates of B without A, in [0, 1]; None: 1.

  Returns:
    A transformation whose state is a `SparseState`; its update needs `params`.

  Raises:
    ValueError: If the rule has `steps=False` without `grow`, or
      `warmup_entering` or `explore_scale` is out of range.
  """
  if not (rule.steps or rule.grow):
    raise ValueError(
      'expected a rule with steps=False to have grow, got None: give a '
      'function that returns the initial values of entries'
    )
  links = entering.links(warmup_entering, explore_scale)
  inner = optax.chain(inner, *links) if links else inner
  inner = optax.GradientTransformationExtraArgs(
    inner.init, optax.with_extra_args_support(inner).update
  )

  def make_key(count):
    return jax.random.fold_in(jax.random.key(seed), count)

  return restrict(
    state_lib.SparseMethod(
      inner, _on_auto_axes(rule), make_counts, is_due, make_key
    )
  )


def chain(
  tx: SparseTransformation, *links: optax.GradientTransformation
) -> SparseTransformation:
  """Returns a sparse method with `links` after its optimizer, inside.

  `optax.chain(tx, *links)` would change updates after the restriction to B,
  and move entries outside of it.

  Example:
    >>> import sparsity
    >>> tx = chain(
    ...   sparsity.static(optax.scale_by_adam(), density=0.1),
    ...   optax.add_decayed_weights(1e-4),
    ...   optax.scale_by_learning_rate(1e-3))

  Raises:
    ValueError: If `tx` is not one of this package's methods itself.
  """
  masked.check_method(tx)
  inner = optax.chain(tx.method.inner, *links)
  return restrict(tx.method._replace(inner=inner))


def restrict(method: state_lib.SparseMethod) -> SparseTransformation:
  """Returns the transformation of a method; see `sparsify`."""
  inner, rule = method.inner, method.rule

  def init(params):
    counts = method.make_counts(params)
    sets = state_lib.dense_sets(params)
    layers = select.pick(params, counts.sizes)
    start = params
    counts_lib.warn_of_thin(layers, counts)
    if layers:
      chosen = rule.init(layers, counts, method.make_key(0))
      distributions.warn_of_empty(chosen.forward)
      sets = ActiveSets(*map(select.put, sets, chosen))
      start = steps.mask(params, dict(chosen.backward))
    count = jnp.zeros([], jnp.int32)
    return SparseState(count, sets, inner.init(start), drift.init(layers))

  def update(gradients, state, params=None, **extra):
    if params is None:
      raise ValueError(
        'expected parameters, got None: call update(gradients, state, params)'
      )
    counts = method.make_counts(params)
    layers = select.pick(params, counts.sizes)
    given = steps.Update(
      method,
      counts,
      gradients,
      params,
      state._replace(count=optax.safe_increment(state.count)),
      drift.is_stale(state.expected, layers),
      extra,
    )
    if not layers:
      return steps.step(given)
    updates, new = steps.make_update(given)
    following = optax.apply_updates(layers, select.pick(updates, layers))
    inside = select.pick(
      new.sets.forward if rule.grow else new.sets.backward, layers
    )
    expected = drift.expect(state.expected, given.stale, following, inside)
    new = new._replace(expected=expected)
    if rule.grow:
      new = steps.settle(given, following, new)
    return updates, new

  tx = SparseTransformation(init, update)
  tx.method = method
  return tx


def _on_auto_axes(rule: state_lib.Rule) -> state_lib.Rule:
  """Returns the rule for parameters sharded over Explicit axes, too."""

  def init(weights, counts, key):
    first = rule.init
    if not isinstance(first, jax.tree_util.Partial):
      first = jax.tree_util.Partial(first)
    choose = topk.on_auto_axes(
      lambda first, weights, key: first(weights, counts, key),
      ActiveSets(weights, weights),
    )
    return choose(first, weights, key)

  def refresh(now, counts):
    choose = topk.on_auto_axes(
      lambda now: rule.refresh(now, counts),
      ActiveSets(now.weights, now.weights),
    )
    return choose(now)

  return rule._replace(init=init, refresh=refresh)
