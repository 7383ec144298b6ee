"""Timed programs as rows of a table, each isolated from the failures of others.

Columns:
  ms       median; `ratio` to the first row of the same case
  error    largest difference from float32, relative to the largest value
  temp     MiB of temporaries of the compiled program
  in_use   MiB on the device after the case; `peak`: largest so far, of all
"""

from collections.abc import Callable
import csv
import statistics
import time
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

FIGURES = ('ms', 'ratio', 'error', 'temp', 'in_use', 'peak')
COLUMNS = ('case', 'way', *FIGURES, 'problem')
# TF32 and bfloat16 products of float32 numbers are not exact.
TOLERANCES = {'float32': 1e-2, 'bfloat16': 2e-2}
MIB = 2**20


class Program(NamedTuple):
  """A function of `carry` and further arguments; the carry is donated."""

  function: Callable[..., Any]
  arguments: tuple[Any, ...]
  carry: tuple[Any, ...] = ()  # the function returns the next one
  expected: Any = None  # arrays like the result


class Table:
  """Rows, printed as they come; no case begins after the deadline."""

  def __init__(self, seconds: float):
    self.rows: list[dict[str, Any]] = []
    self._end = time.monotonic() + seconds
    print(f'{"case":32}{"way":20}' + ''.join(f'{x:>10}' for x in FIGURES))

  def add(self, case: str, way: str, make: Callable[[], Program]) -> None:
    """Adds the row of a program."""
    row = dict.fromkeys(COLUMNS, '') | {'case': case, 'way': way}
    try:
      if time.monotonic() > self._end:
        raise TimeoutError('not run, out of time')
      self._measure(row, make())
    except Exception as error:  # one case must not end the others
      line = str(error).strip().partition('\n')[0][:200]
      row['problem'] = f'{type(error).__name__}: {line}'
    self.rows.append(row)
    texts = [f'{row[x]:10.4g}' if row[x] != '' else 10 * ' ' for x in FIGURES]
    print(f'{case:32}{way:20}' + ''.join(texts), row['problem'], flush=True)

  def _measure(self, row: dict[str, Any], program: Program) -> None:
    carry = jax.tree.map(jnp.copy, program.carry)
    donated = tuple(range(len(carry)))
    jitted = jax.jit(program.function, donate_argnums=donated)
    compiled = jitted.lower(*carry, *program.arguments).compile()

    def call():
      nonlocal carry
      result = compiled(*carry, *program.arguments)
      carry = result if carry else ()
      return result

    row['temp'] = compiled.memory_analysis().temp_size_in_bytes / MIB
    result = call()
    if program.expected is not None:
      dtype, row['error'] = _difference(result, program.expected)
      if not row['error'] <= TOLERANCES[dtype]:
        row['problem'] = f'wrong: error over {TOLERANCES[dtype]} in {dtype}'
    row['ms'] = 1e3 * self._median(call)
    same = [x for x in self.rows if x['case'] == row['case']]
    if not same or same[0]['ms'] != '':
      row['ratio'] = row['ms'] / (same[0] if same else row)['ms']
    memory = jax.local_devices()[0].memory_stats() or {}
    if 'bytes_in_use' in memory:
      row['in_use'] = memory['bytes_in_use'] / MIB
    if 'peak_bytes_in_use' in memory:
      row['peak'] = memory['peak_bytes_in_use'] / MIB

  def _median(self, call: Callable[[], Any]) -> float:
    """Returns the seconds of a call: median of batches of some 20 ms."""

    def seconds(number):
      begin = time.perf_counter()
      for _ in range(number):
        result = call()
      jax.block_until_ready(result)
      return (time.perf_counter() - begin) / number

    seconds(1)
    number = max(1, min(50, int(0.02 / seconds(1))))
    times = [seconds(number)]
    while len(times) < 9 and time.monotonic() < self._end:
      times.append(seconds(number))
    return statistics.median(times)

  def write(self, path: str) -> None:
    """Writes the rows as a CSV that names the device."""
    kind = jax.devices()[0].device_kind
    setting = {'device': kind, 'jax': jax.__version__}
    with open(path, 'w', newline='') as file:
      writer = csv.DictWriter(file, [*COLUMNS, *setting], lineterminator='\n')
      writer.writeheader()
      writer.writerows(row | setting for row in self.rows)
    print(path)


def _difference(found: Any, expected: Any) -> tuple[str, float]:
  """Returns the dtype of arrays, and their largest relative difference."""
  leaves = jax.tree.leaves(found)
  errors = [
    jnp.max(jnp.abs(x.astype(jnp.float32) - y)) / jnp.max(jnp.abs(y))
    for x, y in zip(leaves, jax.tree.leaves(expected), strict=True)
  ]
  narrow = any(x.dtype == jnp.bfloat16 for x in leaves)
  return 'bfloat16' if narrow else 'float32', float(jnp.max(jnp.stack(errors)))
