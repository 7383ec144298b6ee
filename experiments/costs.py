"""The costs of a network and its method: parameters, bytes, FLOPs.

Conventions: `sparsity.flops`.
"""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments import language_plan
from experiments import plan as plan_lib
from experiments.common import build
from experiments.common import methods
import sparsity
from sparsity import flops


class Subject(NamedTuple):
  """What an experiment trains, as far as its costs go."""

  fn: Callable[..., Any]  # (params, *args) -> outputs
  params: Any  # shapes
  args: tuple[Any, ...]  # shapes, of one example
  method: Mapping[str, Any]  # the section `config.method`
  num_steps: int
  batch_size: int


class Row(NamedTuple):
  """A parameter."""

  path: str
  shape: tuple[int, ...]
  entries: int
  density: float  # of what the network sees, at the end of training
  num_bytes: int  # dense
  sparse_bytes: int
  flops: int  # of the forward pass of one example, dense
  sparse_flops: float


class Report(NamedTuple):
  """All parameters, and the network as a whole; FLOPs are of one example."""

  rows: tuple[Row, ...]
  entries: int
  active_entries: int
  num_bytes: int
  sparse_bytes: int
  other_flops: int  # products of no parameter, in `flops` and `sparse_flops`
  flops: float  # of inference, dense
  sparse_flops: float
  inference_share: float  # of dense
  train_flops: float  # of a training step, dense
  sparse_train_flops: float  # the method's, a mean over its training
  train_share: float  # of dense, in as many steps
  total_train_flops: float  # the method's, of all steps and examples


def report(subject: Subject) -> Report:
  """Returns the costs of a network, dense and with its method.

  With `scope='global'` each layer is taken to have the density of all.

  Raises:
    ValueError: If the method's section does not fit the parameters.
  """
  network = flops.count(subject.fn, subject.params, *subject.args)
  forward, backward = densities(subject.method, subject.params)
  rows = tuple(_row(layer, forward) for layer in network.layers)
  dense, sparse = flops.forward(network), flops.forward(network, forward)
  train = _train(network, forward, backward, subject)
  return Report(
    rows,
    entries=sum(row.entries for row in rows),
    active_entries=sum(round(row.density * row.entries) for row in rows),
    num_bytes=sum(row.num_bytes for row in rows),
    sparse_bytes=sum(row.sparse_bytes for row in rows),
    other_flops=network.other,
    flops=dense,
    sparse_flops=sparse,
    inference_share=sparse / dense,
    train_flops=flops.train(network),
    sparse_train_flops=train,
    train_share=train / flops.train(network),
    total_train_flops=train * subject.num_steps * subject.batch_size,
  )


def densities(
  section: Mapping[str, Any], params: Any
) -> tuple[dict[str, float], dict[str, float]]:
  """Returns the densities of sparse layers, forward and backward, by path.

  They are those of the counts: k entries of n are k / n.

  Args:
    section: `config.method`.
    params: a tree of arrays or shapes.
  """
  if section['name'] == 'dense':
    return {}, {}
  select = sparsity.all_of(
    sparsity.is_weight,
    sparsity.none_of(*map(sparsity.matching, section['exclude'])),
  )
  shared = {
    'distribution': section['distribution'],
    'scope': section.get('scope', 'layer'),
    'dense': section['dense'],
    'select': select,
  }
  if section['name'] == 'topkast':
    make = sparsity.make_counts(
      forward_density=section['forward_density'],
      backward_density=section['backward_density'],
      **shared,
    )
  else:
    pattern = build.build(
      methods.PATTERNS, section.get('pattern', {'name': 'unstructured'})
    )
    make = sparsity.make_counts(
      forward_density=section['density'], pattern=pattern, **shared
    )
  counts = make(params)
  return _shares(counts.forward, counts), _shares(counts.backward, counts)


def _shares(kept: Mapping[str, int] | int, counts: sparsity.Counts):
  if counts.scope == 'global':
    return dict.fromkeys(counts.sizes, kept / sum(counts.sizes.values()))
  return {path: kept[path] / size for path, size in counts.sizes.items()}


def _row(layer: flops.Layer, forward: Mapping[str, float]) -> Row:
  density = forward.get(layer.path, 1.0)
  return Row(
    layer.path,
    layer.shape,
    layer.size,
    density,
    flops.num_bytes(layer.size, layer.size),
    flops.num_bytes(layer.size, round(density * layer.size)),
    layer.flops,
    density * layer.flops,
  )


def _train(network, forward, backward, subject: Subject) -> float:
  """Returns the FLOPs of a training step of the method, a mean."""
  section, num_steps = subject.method, subject.num_steps
  match section['name']:
    case 'dense' | 'static' | 'set':
      return flops.train(network, forward)
    case 'topkast':
      return flops.train(network, forward, backward)
    case 'rigl':
      every = section['refresh_every']
      return flops.train_rigl(network, forward, refresh_every=every)
    case 'snip':  # the scores are gradients of the dense network
      scores = section['num_batches'] * flops.train(network)
      return flops.train(network, forward) + scores / num_steps
    case 'magnitude':
      unpruned = min(1.0, section['at'] / num_steps)
      return flops.train_pruned(network, forward, unpruned=unpruned)
    case 'gradual':
      unpruned = flops.unpruned_gradual(
        num_steps=num_steps,
        start=section['start'],
        end=section['end'],
        prune_every=section['prune_every'],
      )
      return flops.train_pruned(network, forward, unpruned=unpruned)
  raise ValueError(f'expected a method of known cost, got {section["name"]!r}')


def image_classification(
  *,
  seeds: tuple[int, ...],
  side_by_side: str,
  method: dict,
  **sections: dict,
) -> Subject:
  """Returns what an experiment in image classification trains."""
  del seeds, side_by_side
  plan = build.call(
    plan_lib.make_plan, {'method': method, **sections}, name='config'
  )

  def logits(params, net_state, images):
    return plan.network.apply(params, net_state, None, images, False)[0]

  images = jax.ShapeDtypeStruct((1, *plan.spec.example_shape), jnp.float32)
  return Subject(
    logits,
    plan.params,
    (plan.net_state, images),
    method,
    plan.num_steps,
    plan.shape.batch_size,
  )


def language_modelling(
  *, seeds: tuple[int, ...], method: dict, **sections: dict
) -> Subject:
  """Returns what an experiment in language modelling trains.

  An example is one row of a batch: a segment that sees a full memory. Products
  of the attention that belong to no parameter are the `other_flops`.
  """
  del seeds
  plan = build.call(
    language_plan.make_plan, {'method': method, **sections}, name='config'
  )
  training = plan.training

  def losses(params, memory, tokens):
    return plan.model.apply(params, memory, None, tokens, tokens, False)[0]

  memory = jax.eval_shape(lambda: plan.model.memory(1, training.memory_len))
  tokens = jax.ShapeDtypeStruct((1, training.segment_len), jnp.int32)
  return Subject(
    losses,
    plan.params,
    (memory, tokens),
    method,
    training.num_steps,
    training.batch_size,
  )


SUBJECTS = {
  'image_classification': image_classification,
  'language_modelling': language_modelling,
}
