"""Predicates `(module_name, name, value)` that select parameters.

A predicate takes one parameter of a tree, as in `hk.data_structures`: the name
of its module (`'lenet/linear_1'`), its own name (`'w'`) and its value. In trees
nested deeper the module name is the path to the leaf, joined by slashes.

Paths are alike in all libraries: `linear/w` in Haiku, `Dense_0/kernel` in Flax
Linen (with or without `nn.Partitioned`), `dense/kernel` in NNX (state or pure).
If an object holds the leaf as an attribute, as in Equinox, its class follows
in parentheses: `layers/0(Linear)/weight`.
"""

from collections.abc import Callable
from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import re
from typing import Any

import jax
from jax import tree_util
import jax.numpy as jnp
import numpy as np

from sparsity import paths as paths_lib

Predicate = Callable[[str, str, Any], bool]

NAMES = ('w', 'kernel', 'weight')

# Ends of module and class names: batch_norm_1, BatchNorm_0, norm1, Embed_0.
_NORMALIZATION = re.compile(r'norm(alization)?(_?\d+)?\)?$', re.IGNORECASE)
_EMBEDDING = re.compile(r'embed(ding)?s?(_?\d+)?\)?$', re.IGNORECASE)
_OFFSET = re.compile(
  r'(^|_)(b|bias(es)?|scale|offset|shift|gamma|beta)(_?\d+)?$', re.IGNORECASE
)


def is_weight(module_name: str, name: str, value: Any) -> bool:
  """Returns True for weights: named w, kernel or weight, of rank 2 or more.

  Embeddings and normalization are excluded, by the name or the class of their
  module, and so are integers. Rank alone is not enough: Haiku stores the scale
  of a batch norm with shape `(1, 1, 1, C)`. `describe` names the rule that
  leaves a parameter out.

  If no leaf of a tree has one of the three names (`[(W, b), ...]`), weights are
  told by shape instead: at least two axes larger than one, and not named like
  a bias, scale or embedding.

  Example:
    >>> import numpy as np
    >>> is_weight('lenet/linear', 'w', np.ones((784, 300)))
    True
    >>> is_weight('layers/1(LayerNorm)', 'weight', np.ones((64, 8, 8)))
    False
  """
  return not _weight_rule(module_name, name, value)


def is_any(module_name: str, name: str, value: Any) -> bool:
  """Returns True for every parameter."""
  del module_name, name, value
  return True


def matching(pattern: str) -> Predicate:
  """Returns a predicate that searches `'module/name'` for `pattern`.

  Example:
    >>> is_first = matching(r'linear/w$')
    >>> is_first('net/linear', 'w', None), is_first('net/linear_1', 'w', None)
    (True, False)

  Raises:
    ValueError: If `pattern` is not a regular expression.
  """
  try:
    compiled = re.compile(pattern)
  except re.error as error:
    raise ValueError(
      f'expected a regular expression, got {pattern!r}: {error}'
    ) from error
  return lambda module, name, _: bool(compiled.search(join(module, name)))


@dataclasses.dataclass(frozen=True)
class _Combined:
  """A predicate made of others, which `_in_tree` looks into."""

  rule: Callable[[Iterable[bool]], bool]
  predicates: tuple[Predicate, ...]

  def __call__(self, module_name: str, name: str, value: Any) -> bool:
    return self.rule(p(module_name, name, value) for p in self.predicates)


def all_of(*predicates: Predicate) -> Predicate:
  """Returns a predicate that is True where all of `predicates` are."""
  return _Combined(all, predicates)


def any_of(*predicates: Predicate) -> Predicate:
  """Returns a predicate that is True where any of `predicates` is."""
  return _Combined(any, predicates)


def none_of(*predicates: Predicate) -> Predicate:
  """Returns a predicate that is True where none of `predicates` is."""
  return _Combined(lambda flags: not any(flags), predicates)


join = paths_lib.join
named_leaves = paths_lib.named_leaves


def path_leaves(tree: Any) -> list[tuple[str, Any]]:
  """Returns `(path, value)` for each leaf, in tree order."""
  return [(join(module, name), x) for module, name, x in named_leaves(tree)]


def describe(params: Any, select: Predicate = is_weight) -> str:
  """Returns a table: path, shape, and selected or the rule that left it out.

  Example:
    >>> import numpy as np
    >>> params = {'linear': {'w': np.ones((4, 3)), 'b': np.ones(3)}}
    >>> print(describe(params))
    linear/b  (3,)    fewer than two axes
    linear/w  (4, 3)  selected
  """
  select = _in_tree(select, params)
  rows = [
    (join(*leaf[:2]), _shape_text(leaf[2]), _rule(select, leaf) or 'selected')
    for leaf in named_leaves(params)
  ]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join(
    '  '.join(map(str.ljust, row, widths)).rstrip() for row in rows
  )


def selected(params: Any, select: Predicate) -> Any:
  """Returns a tree of Python booleans like `params`: True where selected.

  A bare array has no name and is always selected. A tree without leaves is
  returned unchanged.

  Raises:
    ValueError: If nothing is selected (lists the parameters), or a leaf is no
      array.
  """
  leaves = list(named_leaves(params))
  if not leaves:
    return params
  structure = jax.tree.structure(params)
  if tree_util.treedef_is_leaf(structure):
    return True
  for module, name, x in leaves:
    if not _is_numeric(x):
      raise ValueError(
        f'expected arrays, got {_shape_text(x)} at {join(module, name)}: pass '
        'trainable arrays only, as in eqx.filter(model, eqx.is_inexact_array) '
        'or nnx.state(model, nnx.Param)'
      )
  select = _in_tree(select, params)
  flags = [bool(select(*leaf)) for leaf in leaves]
  if not any(flags):
    table = describe(params, select).replace('\n', '\n  ')
    raise ValueError(
      'expected a predicate that selects at least one parameter, but it '
      f'selects none of:\n  {table}'
    )
  return jax.tree.unflatten(structure, flags)


def selected_paths(params: Any, select: Predicate) -> dict[str, Any]:
  """Returns the selected leaves by path, in tree order.

  Raises:
    ValueError: As in `selected`.
  """
  flags = jax.tree.leaves(selected(params, select))
  pairs = zip(flags, path_leaves(params), strict=True)
  return dict(pair for flag, pair in pairs if flag)


def pick(tree: Any, paths: Container[str]) -> dict[str, Any]:
  """Returns the leaves whose path is in `paths`, by path."""
  return {path: x for path, x in path_leaves(tree) if path in paths}


def put(tree: Any, values: Mapping[str, Any]) -> Any:
  """Returns `tree` with the leaves at the paths of `values` replaced."""
  leaves = [values.get(path, x) for path, x in path_leaves(tree)]
  return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _in_tree(select: Predicate, tree: Any) -> Predicate:
  """Returns the predicate for this tree: by shape where no name is known."""
  if isinstance(select, _Combined):
    parts = tuple(_in_tree(p, tree) for p in select.predicates)
    return dataclasses.replace(select, predicates=parts)
  if select is is_weight and not has_names(tree):
    return _is_weight_by_shape
  return select


def has_names(tree: Any) -> bool:
  """Returns whether `is_weight` tells the weights of a tree by name."""
  return any(name in NAMES for _, name, _ in named_leaves(tree))


def _is_weight_by_shape(module_name: str, name: str, value: Any) -> bool:
  return not _shape_rule(module_name, name, value)


def _weight_rule(module_name: str, name: str, value: Any) -> str | None:
  """Returns the rule by which this is no weight, or None."""
  if name not in NAMES and len(np.shape(value)) >= 2:
    return f'not named {", ".join(NAMES[:-1])} or {NAMES[-1]}'
  return _common_rule(module_name, value, len(np.shape(value)))


def _shape_rule(module_name: str, name: str, value: Any) -> str | None:
  if _OFFSET.search(name) or _EMBEDDING.search(name):
    return 'named like a bias, scale or embedding'
  wide = sum(size > 1 for size in np.shape(value))
  return _common_rule(module_name, value, wide)


def _common_rule(module_name, value, num_axes) -> str | None:
  dtype = getattr(value, 'dtype', np.float32)  # masks are selected, too
  if not (
    jnp.issubdtype(dtype, jnp.inexact) or jnp.issubdtype(dtype, np.bool_)
  ):
    return 'not floating-point'
  if num_axes < 2:
    return 'fewer than two axes'
  owner = module_name.rpartition('/')[2]
  for part in owner.split('('):
    if _NORMALIZATION.search(part):
      return 'normalization'
    if _EMBEDDING.search(part):
      return 'embedding'
  return None


def _rule(select: Predicate, leaf: tuple[str, str, Any]) -> str | None:
  """Returns the rule by which a predicate leaves a leaf out, or None."""
  if not _is_numeric(leaf[2]):
    return 'no array'
  if select(*leaf):
    return None
  if select is is_weight:
    return _weight_rule(*leaf)
  if select is _is_weight_by_shape:
    return _shape_rule(*leaf)
  if isinstance(select, _Combined) and select.rule is all:
    return next(filter(None, (_rule(p, leaf) for p in select.predicates)))
  return 'left out by the predicate'


def _is_numeric(x: Any) -> bool:
  """Returns whether a leaf is an array, its shape, or a Python number."""
  if isinstance(x, (int, float, complex)) and not isinstance(x, bool):
    return True
  dtype = getattr(x, 'dtype', None)
  return dtype is not None and (
    jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)
  )


def _shape_text(x: Any) -> str:
  return str(tuple(np.shape(x))) if _is_numeric(x) else type(x).__name__
