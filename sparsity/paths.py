"""Names of the leaves of any library's trees, and the layout of their axes."""

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import jax
from jax import tree_util
import jax.numpy as jnp

LAYOUTS = ('in_out', 'out_in')


def join(module_name: str, name: str) -> str:
  """Returns the path `'module/name'`, which identifies a layer everywhere."""
  return f'{module_name}/{name}' if module_name else name


def named_leaves(tree: Any) -> Iterator[tuple[str, str, Any]]:
  """Yields `(module_name, name, value)` for each leaf, in tree order.

  Leaves whose paths would be the same text are told apart by a number after
  the module: `a/w` and `a#2/w` in `{'a': {'w': ...}, 'a/w': ...}`.
  """
  seen: dict[tuple[str, str], int] = {}
  for keys, value in _keyed_leaves(tree):
    module, name = pair = _names(tree, keys)
    seen[pair] = seen.get(pair, 0) + 1
    if seen[pair] > 1:
      module += f'#{seen[pair]}'
    yield module, name, value


def names_axes(node: Any) -> bool:
  """Returns whether Flax annotates this variable with the axes of a mesh."""
  if not type(node).__module__.startswith('flax.'):
    return False
  if getattr(node, 'names', None):  # Linen's nn.Partitioned
    return True
  metadata: Any = getattr(node, 'get_metadata', dict)()  # NNX
  return any(
    metadata.get(key) for key in ('out_sharding', 'sharding_names', 'sharding')
  )


def is_out_in(path: str, layout: str | None) -> bool:
  """Returns whether a leaf's axes are (out, in, ...), not (..., in, out).

  Without a layout this is so for leaves named `weight`, as in Equinox and
  PyTorch.
  """
  if layout is None:
    return path.rpartition('/')[2] == 'weight'
  return layout == 'out_in'


def in_out_shape(
  path: str, shape: tuple[int, ...], layout: str | None
) -> tuple[int, ...]:
  """Returns the shape of a leaf as (..., in, out)."""
  if len(shape) < 2 or not is_out_in(path, layout):
    return tuple(shape)
  return (*shape[2:], shape[1], shape[0])


def to_in_out(path: str, x: jax.Array, layout: str | None) -> jax.Array:
  """Returns a leaf with the axes (..., in, out)."""
  if x.ndim < 2 or not is_out_in(path, layout):
    return x
  return jnp.moveaxis(x, (1, 0), (-2, -1))


def from_in_out(path: str, x: jax.Array, layout: str | None) -> jax.Array:
  """Returns the inverse of `to_in_out`."""
  if x.ndim < 2 or not is_out_in(path, layout):
    return x
  return jnp.moveaxis(x, (-2, -1), (1, 0))


def _names(tree, keys) -> tuple[str, str]:
  """Returns the names of a leaf's module and of the leaf."""
  # NNX variables and Linen's nn.Partitioned hold their array as `value`.
  if len(keys) > 1 and keys[-1] == tree_util.GetAttrKey('value'):
    keys = keys[:-1]
  path = tree_util.keystr(keys, simple=True, separator='/')
  module, _, name = path.rpartition('/')
  if keys and isinstance(keys[-1], tree_util.GetAttrKey):
    module += _class_name(tree, keys[:-1])
  return module, name


def _class_name(node, path) -> str:
  """Returns '(Class)' of the node at a path, or '' if it is not found."""
  try:
    for key in path:
      if isinstance(key, tree_util.GetAttrKey):
        node = getattr(node, key.name)
      else:
        node = node[key.idx if hasattr(key, 'idx') else key.key]
  except (AttributeError, KeyError, IndexError, TypeError):
    return ''
  return f'({type(node).__name__})'


def _keyed_leaves(tree: Any) -> list[tuple[Any, Any]]:
  """Returns `tree_leaves_with_path`, with the keys of Haiku's FlatMapping."""
  leaves = tree_util.tree_leaves_with_path(tree)
  if not any(
    isinstance(key, tree_util.FlattenedIndexKey)
    for path, _ in leaves
    for key in path
  ):
    return leaves
  named = jax.tree.map(_to_dict, tree, is_leaf=_is_mapping)
  found = tree_util.tree_leaves_with_path(named)
  is_same = len(found) == len(leaves) and all(
    a is b for (_, a), (_, b) in zip(found, leaves, strict=True)
  )
  return found if is_same else leaves


def _is_mapping(node: Any) -> bool:
  return isinstance(node, Mapping) and not isinstance(node, dict)


def _to_dict(node: Any) -> Any:
  """Returns nested mappings as dictionaries, whose keys JAX knows."""
  if not isinstance(node, Mapping):
    return node
  return {key: _to_dict(value) for key, value in node.items()}
