"""The leaves of a checkpoint's state: types and checksum."""

from collections.abc import Mapping
import os
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments import rundir


def by_path(tree: Any) -> dict[str, Any]:
  """Returns the arrays of a tree by path: `{"['linear']['w']": ...}`."""
  arrays = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    path = jax.tree_util.keystr(path)
    if not hasattr(leaf, 'shape') or not hasattr(leaf, 'dtype'):
      raise ValueError(
        f'expected arrays in the state, got {leaf!r} ({type(leaf).__name__}) '
        f'at {path}'
      )
    arrays[path] = leaf
  return arrays


def types(arrays: Mapping[str, Any]) -> dict[str, str]:
  """Returns dtype and shape by path: `{"['w']": 'float32[300,100]'}`."""
  return {
    path: f'{x.dtype}[{",".join(map(str, x.shape))}]'
    for path, x in arrays.items()
  }


def check_types(saved: Mapping, expected: Mapping, name: os.PathLike) -> None:
  """Raises a `FolderError` on the first difference between types."""
  for path in [*expected, *saved]:
    there, here = saved.get(path, 'absent'), expected.get(path, 'absent')
    if there != here:
      raise rundir.FolderError(
        f'checkpoint {name} does not fit: {path or "the state"} is {there} '
        f'there, {here} expected'
      )


def checksum(arrays: Mapping[str, Any]) -> int | None:
  """Returns the CRC-32 of all bytes; None if some are on other hosts."""
  value = 0
  for leaf in arrays.values():
    if isinstance(leaf, jax.Array):
      if not leaf.is_fully_addressable and not leaf.is_fully_replicated:
        return None
      if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.ascontiguousarray(leaf)
    value = zlib.crc32(array.reshape(-1).view(np.uint8), value)
  return value
