"""What a checkpoint's files say of its arrays, before any memory is taken."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp


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
