"""What is known of the arrays in a checkpoint: types, checksum, sizes."""

import math
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp


def leaves(tree: Any) -> dict[str, str]:
  """Returns the type of each leaf by path: `{'w': 'float32[300,100]'}`.

  Raises:
    ValueError: If one is not an array.
  """
  types = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path)
    if not hasattr(leaf, 'shape') or not hasattr(leaf, 'dtype'):
      raise ValueError(
        f'expected arrays in the state, got {leaf!r} ({type(leaf).__name__}) '
        f'at {name}'
      )
    types[name] = f'{leaf.dtype}[{",".join(map(str, leaf.shape))}]'
  return types


def checksum(tree: Any) -> int | None:
  """Returns the CRC-32 of all bytes; None if some are on other hosts."""
  value = 0
  for leaf in jax.tree.leaves(tree):
    if isinstance(leaf, jax.Array):
      if not leaf.is_fully_addressable and not leaf.is_fully_replicated:
        return None
      if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.ascontiguousarray(leaf)
    value = zlib.crc32(array.reshape(-1).view(np.uint8), value)
  return value


def check_sizes(metadata: Any, like: Any) -> None:
  """Checks that files hold what is expected, in chunks no larger than that.

  The shapes in these files are not those that `Checkpoints.save` wrote beside
  them; reading a forged one would take as much memory as it says.

  Args:
    metadata: a tree of Orbax's, of the arrays in the files.
    like: the tree of arrays or shapes that is to be read.

  Raises:
    ValueError: If an array is absent, or of another size.
  """
  found = ocp.tree.to_flat_dict(metadata)
  for path, leaf in ocp.tree.to_flat_dict(_as_saved(like)).items():
    there, expected = found.get(path), _data_shape(leaf)
    shape = getattr(there, 'shape', None)
    if shape != expected:
      raise ValueError(
        f'expected {"/".join(path)} of the shape {expected} in its files, got '
        f'{"none" if shape is None else shape}'
      )
    itemsize = jnp.dtype(there.dtype).itemsize
    chunk = there.storage.chunk_shape if there.storage else ()
    if math.prod(chunk or ()) > max(1, math.prod(shape)) or itemsize > 16:
      raise ValueError(
        f'expected {"/".join(path)} in chunks within its shape {expected}, got '
        f'{chunk} of {itemsize} bytes each'
      )


def _as_saved(like: Any) -> Any:
  """Returns a tree with the keys that Orbax gives it."""
  return ocp.tree.serialize_tree(like, keep_empty_nodes=True)


def _data_shape(leaf: Any) -> tuple[int, ...]:
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    return jax.eval_shape(jax.random.key_data, leaf).shape
  return tuple(leaf.shape)
