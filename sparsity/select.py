"""Which parameters are sparse: predicates `(module_name, name, value)`.

A predicate sees one parameter of a tree, as in `hk.data_structures`: the name
of its module (`'lenet/linear_1'`), its own name (`'w'`), and its value. Trees
that are nested deeper are named alike, the path joined by slashes.
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
  """Whether a parameter is a weight: named `w`, of rank 2 or more.

  Never biases, embeddings or normalization. The rank alone would not do: Haiku
  stores the scale of a batch norm as `(1, 1, 1, C)`.

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
  """Whether a parameter is a parameter: always."""
  del module_name, name, value
  return True


def matching(pattern: str) -> Predicate:
  """Returns a predicate: `pattern` is found in `'module/name'`.

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
  """Returns a predicate: every one of `predicates` holds."""
  return lambda *parameter: all(p(*parameter) for p in predicates)


def any_of(*predicates: Predicate) -> Predicate:
  """Returns a predicate: at least one of `predicates` holds."""
  return lambda *parameter: any(p(*parameter) for p in predicates)


def none_of(*predicates: Predicate) -> Predicate:
  """Returns a predicate: not one of `predicates` holds."""
  return lambda *parameter: not any(p(*parameter) for p in predicates)


def join(module_name: str, name: str) -> str:
  """Returns `'module/name'`, the path by which layers are named everywhere."""
  return f'{module_name}/{name}' if module_name else name


def named_leaves(tree: Any) -> Iterator[tuple[str, str, Any]]:
  """Yields `(module_name, name, value)` for each leaf, in the tree's order."""
  for path, value in jax.tree_util.tree_leaves_with_path(tree):
    *modules, name = [_key(entry) for entry in path] or ['']
    yield '/'.join(modules), name, value


def selected(params: Any, select: Predicate) -> Any:
  """Returns a tree of Python booleans like `params`: is the leaf selected?

  An array by itself, which has no name, is always selected; a tree without
  leaves stays as it is.

  Raises:
    ValueError: If nothing is selected; lists the parameters there are.
  """
  structure = jax.tree.structure(params)
  if not structure.num_leaves:
    return params
  if jax.tree_util.treedef_is_leaf(structure):
    return True
  leaves = list(named_leaves(params))
  flags = [bool(select(*leaf)) for leaf in leaves]
  if not any(flags):
    names = '\n  '.join(
      f'{join(module, name)} {tuple(value.shape)}'
      for module, name, value in leaves
    )
    raise ValueError(
      'expected a predicate that selects at least one parameter, but it '
      f'selects none of:\n  {names}'
    )
  return jax.tree.unflatten(structure, flags)


def pick(tree: Any, paths: Container[str]) -> dict[str, Any]:
  """Returns the leaves of `tree` whose path is in `paths`, by path."""
  leaves = ((join(module, name), x) for module, name, x in named_leaves(tree))
  return {path: x for path, x in leaves if path in paths}


def put(tree: Any, values: Mapping[str, Any]) -> Any:
  """Returns `tree` with the leaves that `values` names by path replaced."""
  leaves = [
    values.get(join(module, name), x) for module, name, x in named_leaves(tree)
  ]
  return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def selected_paths(params: Any, select: Predicate) -> dict[str, Any]:
  """Returns the selected leaves by path `'module/name'`, in the tree's order.

  Raises:
    ValueError: If nothing is selected (lists the parameters there are), or two
      leaves have the same path (`{'a/b': ...}` beside `{'a': {'b': ...}}`).
  """
  flags = jax.tree.leaves(selected(params, select))
  found = {}
  for flag, (module, name, x) in zip(flags, named_leaves(params), strict=True):
    if flag and found.setdefault(join(module, name), x) is not x:
      raise ValueError(
        f'expected different paths, got {join(module, name)!r} twice'
      )
  return found


def map_selected(fn: Callable[..., Any], select: Predicate, tree, *rest) -> Any:
  """Maps `fn` over the selected leaves of trees; others stay as in `tree`.

  Raises:
    ValueError: If nothing is selected; lists the parameters there are.
  """
  return jax.tree.map(
    lambda is_selected, x, *xs: fn(x, *xs) if is_selected else x,
    selected(tree, select),
    tree,
    *rest,
  )


def _key(entry: Any) -> str:
  for attribute in ('key', 'name', 'idx'):
    if hasattr(entry, attribute):
      return str(getattr(entry, attribute))
  return str(entry)
