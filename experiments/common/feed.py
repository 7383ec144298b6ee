"""How examples reach the training step: from the device, or from a stream.

Everything here has members (such as seeds) along the leading axis of states,
weights and metrics.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import distributed
from experiments.common import processes
from experiments.common import step as step_lib
from experiments.common import storage as storage_lib
from experiments.data import dataset
from experiments.data import order

# (weights, network state, batch, float32 counts [B]) -> sums over the batch
Totals = Callable[..., step_lib.Metrics]


class Steps(NamedTuple):
  """The pure functions that a feed brings examples to, for one member."""

  recipe: Callable[[Any], step_lib.Recipe]  # of a seed
  totals: Totals
  means: Callable[[step_lib.Metrics], step_lib.Metrics]  # of sums
  # From what `recipe` takes for a seed, to the seed.
  seed_of: Callable[[Any], Any] = lambda seed: seed


class Feed(NamedTuple):
  """Training and evaluation on one data set."""

  # (state, seeds, first_step, num_steps) -> state, metrics
  train: Callable[..., tuple[Any, step_lib.Metrics]]
  # (weights, network state, 'validation' or 'test') -> metrics
  evaluate: Callable[[Any, Any, str], step_lib.Metrics]
  # (seeds, num) -> the first batches of training, leaves [members, num, B, ...]
  first_batches: Callable[[Sequence[int], int], Any]


class Shape(NamedTuple):
  """Sizes of batches, and the devices they are divided among."""

  batch_size: int
  eval_batch_size: int
  mesh: jax.sharding.Mesh


def from_arrays(arrays: dataset.Arrays, steps: Steps, shape: Shape) -> Feed:
  """Returns the feed of data that lie on the device: many steps a dispatch."""
  replicated = distributed.replicated(shape.mesh)
  storages = _storages(steps)
  num_train = len(arrays.train.labels)
  train_split = distributed.to_devices(_batch(arrays.train), replicated)
  splits = {
    name: distributed.to_devices(
      _in_batches(getattr(arrays, name), shape.eval_batch_size),
      distributed.over_data(shape.mesh, 1),
    )
    for name in ('validation', 'test')
  }

  def batch_at(i, indices, examples):
    return jax.tree.map(lambda x: x[indices[i]], examples)

  def train_member(state, seed, indices, examples, first, last):
    return step_lib.train_steps(
      steps.recipe(seed),
      state,
      functools.partial(batch_at, indices=indices, examples=examples),
      _training_key(steps.seed_of(seed)),
      first,
      last,
    )

  def measure_member(state, seed, indices, examples, i):
    return _measure(steps, state, seed, batch_at(i, indices, examples))

  def evaluate_member(weights, net_state, split):
    sums = jax.lax.map(
      lambda part: steps.totals(weights, net_state, *part), split
    )
    return steps.means(jax.tree.map(lambda x: jnp.sum(x, 0), sums))

  train_all, measure_all = (
    jax.jit(over_members(fn, 3), donate_argnums=0, out_shardings=replicated)
    for fn in (train_member, measure_member)
  )
  summarize_all, masks_all = _figures(steps, replicated)
  evaluate_all = jax.jit(
    over_members(evaluate_member, 2), out_shardings=replicated
  )
  indices_sharding = distributed.over_data(shape.mesh, 2)

  def indices(seeds, first_step, num_steps):
    return np.stack(
      [
        order.batch_indices(
          steps.seed_of(seed),
          first_step,
          num_steps,
          shape.batch_size,
          num_train,
        )
        for seed in seeds
      ]
    )

  def train(state, seeds, first_step, num_steps):
    chosen = indices(seeds, first_step, num_steps)
    chosen = distributed.to_devices(chosen, indices_sharding)
    more = (_seed_array(seeds), chosen, train_split)
    storage = storages(seeds[0])
    before = storage.keep(masks_all(storage_lib.on_device(state)))
    state, sums = storage_lib.make_steps(
      storage,
      storage_lib.Steps(
        lambda state, first, last: train_all(state, *more, first, last),
        lambda state, i: measure_all(state, *more, i),
      ),
      state,
      first_step,
      num_steps,
    )
    metrics = jax.tree.map(lambda x: x / num_steps, sums)
    return state, summarize_all(storage_lib.on_device(state), metrics, before)

  def first_batches(seeds, num):
    chosen = indices(seeds, 0, num)
    return jax.tree.map(lambda x: x[chosen], _batch(arrays.train))

  return Feed(
    train,
    lambda weights, state, split: evaluate_all(weights, state, splits[split]),
    first_batches,
  )


def from_stream(stream: dataset.Stream, steps: Steps, shape: Shape) -> Feed:
  """Returns the feed of data that are read while training: a step a dispatch.

  There is one member at a time.
  """
  replicated = distributed.replicated(shape.mesh)
  over_data = distributed.over_data(shape.mesh)
  storages = _storages(steps)
  reader = _Reader(stream, shape.batch_size)

  def step_member(state, seed, batch):
    recipe = steps.recipe(seed)
    key = jax.random.fold_in(_training_key(seed), state.step)
    return step_lib.train_step(recipe, state, batch, key)

  def measure_member(state, seed, batch):
    return _measure(steps, state, seed, batch)

  step_all, measure_all = (
    jax.jit(over_members(fn, 2), donate_argnums=0, out_shardings=replicated)
    for fn in (step_member, measure_member)
  )
  totals_all = jax.jit(over_members(steps.totals, 2), out_shardings=replicated)
  summarize_all, masks_all = _figures(steps, replicated)

  def make_step(state, seed, step, batch):
    more = (_seed_array([seed]), batch)
    one = storage_lib.Steps(
      lambda state, *_: step_all(state, *more),
      lambda state, _: measure_all(state, *more),
    )
    return storage_lib.make_steps(storages(seed), one, state, step, 1)

  def train(state, seeds, first_step, num_steps):
    [seed] = seeds
    before = storages(seed).keep(masks_all(storage_lib.on_device(state)))
    rows = []
    skipped = stream.skipped()
    batches = reader.take(seed, first_step, num_steps)
    for step, batch in enumerate(batches, first_step):
      batch = distributed.from_shares(_batch(batch), over_data)
      state, metrics = make_step(state, seed, step, batch)
      rows.append(metrics)
    metrics = jax.tree.map(lambda *xs: jnp.stack(xs, 1), *rows)
    metrics = summarize_all(storage_lib.on_device(state), metrics, before)
    # Of these steps alone, so that it is the same in a run that was resumed.
    skipped = processes.total(stream.skipped() - skipped)
    metrics['quarantined'] = np.full(1, skipped, np.float32)
    return state, metrics

  def evaluate(weights, net_state, split):
    sums = None
    for examples, counts in stream.evaluate(
      split=split, batch_size=shape.eval_batch_size, **_processes()
    ):
      part = distributed.from_shares((_batch(examples), counts), over_data)
      more = totals_all(weights, net_state, *part)
      sums = more if sums is None else jax.tree.map(jnp.add, sums, more)
    return steps.means(sums)

  def first_batches(seeds, num):
    [seed] = seeds
    taken = [
      _batch(batch)
      for batch in _Reader(stream, shape.batch_size).take(seed, 0, num)
    ]
    return jax.tree.map(lambda *xs: np.stack(xs)[None], *taken)

  return Feed(train, evaluate, first_batches)


class _Reader:
  """Batches of a stream from any step on; goes on where it was, if it can."""

  def __init__(self, stream: dataset.Stream, batch_size: int):
    self._stream, self._batch_size = stream, batch_size
    self._position, self._iterator = None, None

  def take(self, seed, first_step, num_steps) -> Iterator[dataset.Examples]:
    if self._position != (seed, first_step):
      self._iterator = iter(
        self._stream.train(
          seed=seed,
          first_step=first_step,
          batch_size=self._batch_size,
          **_processes(),
        )
      )
    for step in range(first_step, first_step + num_steps):
      self._position = None  # until the step is made
      batch = next(self._iterator)
      self._position = (seed, step + 1)
      yield batch


def of_members(storage: storage_lib.Storage) -> storage_lib.Storage:
  """Returns what the host does to states of members; compact, of one."""
  if not storage.is_compact:
    return storage
  return storage._replace(
    pack=over_members(storage.pack, 1),
    unpack=over_members(storage.unpack, 1),
    refresh=over_members(storage.refresh, 3),
  )


def over_members(fn, num_mapped: int):
  """Returns `fn` over the leading axis of its first arguments.

  A single member is trained without vmap, under which a refresh that is not due
  would be computed all the same (`cond` becomes `select`).
  """

  def over_members(*args):
    mapped, shared = args[:num_mapped], args[num_mapped:]
    if len(jax.tree.leaves(mapped)[0]) > 1:
      axes = (0,) * num_mapped + (None,) * len(shared)
      return jax.vmap(fn, axes)(*args)
    result = fn(*jax.tree.map(lambda x: x[0], mapped), *shared)
    return jax.tree.map(lambda x: x[None], result)

  return over_members


def _measure(steps: Steps, state, seed, batch):
  recipe = steps.recipe(seed)
  key = jax.random.fold_in(_training_key(seed), state.step)
  return step_lib.measure_step(recipe, state, batch, key)


def _figures(steps: Steps, replicated: jax.sharding.Sharding):
  """Returns functions of members: their rows, and their masks.

  Masks are copies, for the state is given away.
  """
  recipe = steps.recipe(0)

  def summarize(state, metrics, before):
    return step_lib.summarize(recipe, state, metrics, before)

  def masks(state):
    return recipe.masks(state.params, state.opt_state)

  return (
    jax.jit(over_members(summarize, 3), out_shardings=replicated),
    jax.jit(over_members(masks, 1), out_shardings=replicated),
  )


def _storages(steps: Steps) -> Callable[[int], storage_lib.Storage]:
  """Returns a function of a seed, whose refreshes are compiled once."""
  return functools.cache(lambda seed: of_members(steps.recipe(seed).storage))


def _training_key(seed):
  return jax.random.fold_in(jax.random.key(seed), 1)


def _seed_array(seeds):
  return np.array(seeds, np.uint32)


def _processes() -> dict[str, int]:
  return {
    'process_index': jax.process_index(),
    'process_count': jax.process_count(),
  }


def _batch(examples: dataset.Examples) -> step_lib.Batch:
  return step_lib.Batch(examples.inputs, examples.labels)


def _in_batches(examples: dataset.Examples, batch_size: int):
  """Returns a batch [N / B, B, ...] and float32 counts, 0 for padding."""
  num = len(examples.labels)
  counts = np.ones(num, np.float32)

  def reshape(x):
    pads = [(0, -num % batch_size)] + [(0, 0)] * (x.ndim - 1)
    return np.pad(x, pads).reshape(-1, batch_size, *x.shape[1:])

  return jax.tree.map(reshape, (_batch(examples), counts))
