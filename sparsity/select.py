"""Predicates `(module_name, name, value)` that select parameters.

A predicate takes one parameter of a tree, as in `hk.data_structures`: the name
of its module (`'lenet/linear_1'`), its own name (`'w'`) and its value. In trees
nested deeper the module name is the path to the leaf, joined by slashes.
"""

from collections.abc import Callable
from collections.abc import Container
from collections.abc import Iterator
from collections.abc import Mapping
import re
from typing import Any

import jax

Predicate = Callable[[str, str, Any], bool]

_NORMALIZATION = re.compile(
  r'(^|[/_~])(batch|layer|group|instance|rms)_?norm(_\d+)?$'
)
_EMBEDDING = re.compile(r'(^|[/_~])(embed|embedding|embeddings)(_\d+)?$')


def is_weight(module_name: str, name: str, value: Any) -> bool:
  """Returns True for weights: named `w`, of rank 2 or more.

  Biases, embeddings and normalization are excluded. Rank alone is not enough:
  Haiku stores the scale of a batch norm with shape `(1, 1, 1, C)`.

  Example:
    >>> import numpy as np
    >>> is_weight('lenet/linear', 'w', np.ones((784, 300)))
    True
    >>> is_weight('net/batch_norm', 'scale', np.ones((1, 1, 1, 64)))
    False
  """
  return (
    name == 'w'
    and len(value.shape) >= 2
    and not _EMBEDDING.search(module_name)
    and not _NORMALIZATION.search(module_name)
  )


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


def all_of(*predicates: Predicate) -> Predicate:
  """Returns a predicate that is True where all of `predicates` are."""
  return lambda *parameter: all(p(*parameter) for p in predicates)


def any_of(*predicates: Predicate) -> Predicate:
  """Returns a predicate that is True where any of `predicates` is."""
  return lambda *parameter: any(p(*parameter) for p in predicates)


def none_of(*predicates: Predicate) -> Predicate:
  """Returns a predicate that is True where none of `predicates` is."""
  return lambda *parameter: not any(p(*parameter) for p in predicates)


def join(module_name: str, name: str) -> str:
  """Returns the path `'module/name'`, which identifies a layer everywhere."""
  return f'{module_name}/{name}' if module_name else name


def named_leaves(tree: Any) -> Iterator[tuple[str, str, Any]]:
  """Yields `(module_name, name, value)` for each leaf, in tree order."""
  for path, value in jax.tree_util.tree_leaves_with_path(tree):
    module = jax.tree_util.keystr(path[:-1], simple=True, separator='/')
    yield module, jax.tree_util.keystr(path[-1:], simple=True), value


def path_leaves(tree: Any) -> list[tuple[str, Any]]:
  """Returns `(path, value)` for each leaf, in tree order."""
  return [(join(module, name), x) for module, name, x in named_leaves(tree)]


def selected(params: Any, select: Predicate) -> Any:
  """Returns a tree of Python booleans like `params`: True where selected.

  A bare array has no name and is always selected. A tree without leaves is
  returned unchanged.

  Raises:
    ValueError: If nothing is selected; lists the parameters.
  """
  structure = jax.tree.structure(params)
  if not structure.num_leaves:
    return params
  if jax.tree_util.treedef_is_leaf(structure):
    return True
  flags = [bool(select(*leaf)) for leaf in named_leaves(params)]
  if not any(flags):
    names = '\n  '.join(
      f'{path} {tuple(x.shape)}' for path, x in path_leaves(params)
    )
    raise ValueError(
      'expected a predicate that selects at least one parameter, but it '
      f'selects none of:\n  {names}'
    )
  return jax.tree.unflatten(structure, flags)


def selected_paths(params: Any, select: Predicate) -> dict[str, Any]:
  """Returns the selected leaves by path, in tree order.

  Raises:
    ValueError: If nothing is selected (lists the parameters), or two leaves
      have the same path (`{'a/b': ...}` beside `{'a': {'b': ...}}`).
  """
  flags = jax.tree.leaves(selected(params, select))
  found = {}
  for flag, (path, x) in zip(flags, path_leaves(params), strict=True):
    if flag and found.setdefault(path, x) is not x:
      raise ValueError(f'expected different paths, got {path!r} twice')
  return found


def pick(tree: Any, paths: Container[str]) -> dict[str, Any]:
  """Returns the leaves whose path is in `paths`, by path."""
  return {path: x for path, x in path_leaves(tree) if path in paths}


def put(tree: Any, values: Mapping[str, Any]) -> Any:
  """Returns `tree` with the leaves at the paths of `values` replaced."""
  leaves = [values.get(path, x) for path, x in path_leaves(tree)]
  return jax.tree.unflatten(jax.tree.structure(tree), leaves)
