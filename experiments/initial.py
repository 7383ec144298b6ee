"""Training that starts from a trained network: `config.init_from`.

A file of `experiments.export` or a run folder gives the weights and, to methods
whose active entries do not follow from the weights, the masks.
"""

from collections.abc import Mapping
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build
from experiments import export
from experiments.tasks import base
from experiments.tasks import table
import sparsity
from sparsity import select


def make_task(config: Mapping[str, Any]) -> base.Task:
  """Returns the task of a config; it starts from `config.init_from` if given.

  The file is read with the data, by `check_data` or when training begins.
  """
  task = table.make_task(config)
  path = dict(config).pop('init_from', None)
  return task if path is None else _start_from(task, path)


def _start_from(task: base.Task, path: str) -> base.Task:
  method, first = task.objective.method, task.stages[0]
  if len(task.exports) > 1:
    raise ValueError('config.init_from: expected None with continual learning')
  if method.needs_scores:
    raise ValueError(
      'config.init_from: expected None with SNIP, which prunes initial '
      "weights; use method 'static' to keep the masks of the file"
    )

  @functools.cache
  def read() -> export.Network:
    where = pathlib.Path(path)
    try:
      network = export.extract(where) if where.is_dir() else export.load(where)
      shapes = _shapes(network.weights), _shapes(task.params)
      if lines := build.differences(*shapes):
        raise ValueError('\n  '.join(['weights that do not fit:', *lines]))
    except ValueError as error:
      raise ValueError(f'config.init_from: {error}') from error
    return network

  def begin(seed, last):
    tx, storage = method.make(seed)
    network, state = read(), storage.unpack(first.begin(seed, last))
    params = _place(method.from_weights(network.weights), state.params)
    opt_state = _place(jax.jit(tx.init)(params), state.opt_state)
    if network.masks:
      opt_state = _with_masks(opt_state, network.masks, path)
    state = state._replace(params=params, opt_state=opt_state)
    if _shapes(network.state) == _shapes(state.net_state):
      state = state._replace(net_state=_place(network.state, state.net_state))
    return storage.pack(state)

  def check_data():
    task.check_data()
    read()
    begin(0, None)

  stages = (first._replace(begin=begin), *task.stages[1:])
  return task._replace(stages=stages, check_data=check_data)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  return {path: tuple(x.shape) for path, x in select.path_leaves(tree)}


def _with_masks(opt_state: Any, masks: Any, path: str) -> Any:
  """Returns the state with A and B as given, if the method keeps A equal to B.

  Sets that follow from the weights, as Top-KAST's, and the full sets before
  gradual pruning stay.
  """

  def is_sets(node):
    return isinstance(node, sparsity.ActiveSets)

  def replace(node):
    if not is_sets(node):
      return node
    given = dict(select.path_leaves(masks))
    forward, backward = (dict(select.path_leaves(sets)) for sets in node)
    new = {}
    for name, old in forward.items():
      k = int(old.sum())
      if k == old.size or k != int(backward[name].sum()):
        continue
      mask = given.get(name, np.ones(old.shape, bool))
      if int(mask.sum()) != k:
        raise ValueError(
          f'config.init_from: expected {k} active entries in {name}, as '
          f'config.method has, got {int(mask.sum())} in {path}'
        )
      new[name] = mask
    sets = (select.put(old, new) for old in node)
    return sparsity.ActiveSets(*(_place(new, node[0]) for new in sets))

  return jax.tree.map(replace, opt_state, is_leaf=is_sets)


def _place(tree: Any, like: Any) -> Any:
  """Returns a tree of arrays with the dtypes and shardings of another."""
  return jax.tree.map(
    lambda x, old: jax.device_put(jnp.array(x, old.dtype), old.sharding),
    tree,
    like,
  )
