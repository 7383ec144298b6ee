"""Structures made from masks, and checked.

Shapes: in, out: the weight's two axes as a matrix; k_A, k_B: entries of A, B.
"""

import jax
import numpy as np

from sparsity.kernels import host
from sparsity.kernels import structure as structure_lib
from sparsity.kernels.structure import Structure

_from_masks = structure_lib.on_cpu(structure_lib.from_traced_masks)


def from_masks(
  forward: jax.Array,
  backward: jax.Array,
  counts: tuple[int, int] | None = None,
) -> Structure:
  """Returns the structure of two nested boolean masks.

  Example:
    >>> A = np.array([[False, True], [True, False]])
    >>> structure = from_masks(A, np.ones((2, 2), bool))
    >>> structure.columns  # A: inputs 1 and 0; B minus A: inputs 0 and 1
    array([1, 0, 0, 1], dtype=int32)

  Args:
    forward: bool [in, out], True at the entries of A.
    backward: bool [in, out], True at the entries of B.
    counts: (k_A, k_B), required and not checked under jit; None: counted.

  Raises:
    ValueError: If the masks are not boolean matrices of the same shape, A is
      not a subset of B, the numbers of entries are not `counts`, or the weight
      has 2^31 entries or more.
  """
  if forward.shape != backward.shape or forward.ndim != 2:
    raise ValueError(
      'expected two masks of one [in, out] shape, got '
      f'{forward.shape} and {backward.shape}'
    )
  if forward.dtype != bool or backward.dtype != bool:
    raise ValueError(
      f'expected boolean masks, got {forward.dtype} and {backward.dtype}'
    )
  structure_lib.check_num_entries(forward.shape)
  if structure_lib.is_traced((forward, backward)):
    return _from_masks(forward, backward, counts=counts)
  forward, backward = np.asarray(forward), np.asarray(backward)
  if counts is None:
    counts = np.count_nonzero(forward), np.count_nonzero(backward)
  if host.is_available():
    structure, found = host.from_masks(forward, backward, counts)
    _check_counts(found, counts)
    return structure
  is_within = not np.any(forward & ~backward)
  found = np.count_nonzero(forward), np.count_nonzero(backward)
  _check_counts(found if is_within else None, counts)
  return _from_masks(forward, backward, counts=counts)


def _check_counts(found, expected):
  if found is None:
    raise ValueError('expected every entry of forward to be one of backward')
  if found != expected:
    raise ValueError(
      f'expected {expected[0]} and {expected[1]} entries in the forward and '
      f'backward sets, got {found[0]} and {found[1]}: compact storage needs '
      'constant numbers, masked storage takes any'
    )


def check(structure: Structure, shape: tuple[int, int]) -> None:
  """Checks every index of a structure, on the host; not under jit.

  The kernels trust their indices, so a structure from elsewhere, such as a
  file, has to pass this check once.

  Example:
    >>> mask = np.eye(3, dtype=bool)
    >>> check(from_masks(mask, mask), (3, 3))
    >>> check(from_masks(mask, mask), (3, 4))
    Traceback (most recent call last):
    ...
    ValueError: expected cells of shape (9,) for a weight (3, 4), got (7,)

  Raises:
    ValueError: If shapes, cell boundaries, indices or their order are wrong.
  """
  num_inputs, num_outputs = shape
  structure_lib.check_num_entries(shape)
  s = Structure(*(np.asarray(array).astype(np.int64) for array in structure))
  num_forward, num_backward = s.t_columns.size, s.columns.size
  shapes = structure_lib.expected_shapes(shape, num_forward, num_backward)
  for name, expected in shapes._asdict().items():
    found = getattr(s, name).shape
    if found != expected:
      raise ValueError(
        f'expected {name} of shape {expected} for a weight {shape}, got {found}'
      )
  for name, size in (('cells', num_backward), ('t_cells', num_forward)):
    cells = getattr(s, name)
    if cells[0] != 0 or cells[-1] != size or np.any(np.diff(cells) < 0):
      raise ValueError(
        f'expected {name} to ascend from 0 to {size}, got {cells}'
      )
  outputs = structure_lib.outputs_of(s, shape)
  for name, indices, size in (
    ('columns', s.columns, num_inputs),
    ('t_columns', s.t_columns, num_outputs),
    ('t_entries', s.t_entries, num_backward),
  ):
    if np.any(indices < 0) or np.any(indices >= size):
      raise ValueError(
        f'expected {name} in [0, {size}), got '
        f'[{indices.min()}, {indices.max()}]'
      )
  forward, backward = np.zeros((2, *shape), bool)
  backward[s.columns, outputs] = True
  forward[s.columns[:num_forward], outputs[:num_forward]] = True
  if np.count_nonzero(forward) != num_forward:
    raise ValueError('expected distinct entries, got one of A twice')
  expected = from_masks(forward, backward)
  for name, array in expected._asdict().items():
    if not np.array_equal(array, getattr(s, name)):
      raise ValueError(
        f'expected distinct entries, sorted in each cell, and {name} to '
        'describe the same entries as the other arrays'
      )
