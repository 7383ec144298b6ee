"""Language modelling with Transformer-XL: from a config to a task.

The memory is part of the training state and a batch is a pure function of the
step, so that a resumed run makes the same steps.

B: batch; T: tokens of a segment; M: memory; N: micro-batches.
"""

from collections.abc import Callable
import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build
from experiments import mesh as mesh_lib
from experiments import methods
from experiments import rundir
from experiments import storage as storage_lib
from experiments.data import segments
from experiments.data import text
from experiments.data import vocabulary as vocabulary_lib
from experiments.models import transformer_xl
from experiments.tasks import base
from experiments.tasks import scoring

VOCABULARY = 'vocabulary.json'  # in the run folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(base.Training):
  """The section `config.train` of a language model."""

  segment_len: int
  memory_len: int


def language_modelling(
  *,
  data: dict,
  model: dict,
  evaluation: dict,
  powerprop: dict,
  method: dict,
  optimizer: dict,
  train: dict,
) -> base.Task:
  """Returns the task of a config."""
  corpus = functools.cache(build.build(_TEXTS, data, name='config.data'))
  training = base.make_training(Training, train)
  make_model = functools.partial(
    build.call, transformer_xl.transformer_xl, model, name='config.model'
  )
  evaluated, evaluate_shape = _evaluated(model, evaluation, training)
  made = methods.make_method(method, powerprop, optimizer, training.mesh.size)
  if made.needs_scores:
    raise ValueError(
      'config.method.name: expected a method without scores before training, '
      f'got {method["name"]!r}'
    )
  loss = scoring.make_loss(
    evaluated, evaluate_shape, model['num_layers'], training.mesh
  )
  return base.make_task(
    title=f'Transformer-XL on {data["name"]}, '
    f'segments of {training.segment_len}',
    loss=_make_loss(make_model(mesh=training.mesh)),
    method=made,
    training=training,
    init=functools.partial(_init, make_model(), training),
    state_spec=mesh_lib.over_data(training.mesh, 1),
    batch=_batch_shapes(training),
    batch_at=lambda inputs, i: jax.tree.map(lambda x: x[i], inputs),
    make_stages=lambda begin: (
      _make_stage(made, begin, training, corpus, loss),
    ),
    example=_example(make_model(), training),
    check_data=lambda: _check_data(corpus(), model['vocab_size'], training),
    check_folder=lambda workdir: _check_vocabulary(workdir, corpus()),
    write_folder=lambda workdir: _write_vocabulary(workdir, corpus()),
    language=(evaluated, evaluate_shape),
  )


def _evaluated(model: dict, evaluation: dict, training: Training):
  """Returns the model with the evaluation's lengths, and their shape."""
  name = 'config.evaluation'
  shape = build.call(scoring.Shape, evaluation, name=name)
  sizes = ('batch_size', 'segment_len', 'memory_len')
  build.check_least(name, 1, **{key: getattr(shape, key) for key in sizes})
  build.check_least(name, 2, num_tokens=shape.num_tokens)
  mesh_lib.check_batch_size(
    shape.batch_size, training.mesh, name='evaluation.batch_size'
  )
  evaluated = build.call(
    transformer_xl.transformer_xl,
    model,
    name='config.model',
    clamp_len=shape.clamp_len,
    same_length=True,
    mesh=training.mesh,
  )
  return evaluated, shape


def _make_loss(model: transformer_xl.TransformerXL) -> Callable[..., Any]:
  """Returns the mean of -log p of the next token, in nats.

  The network's state is the memory of each micro-batch, a `Memory` with leaves
  [N, B / N, ...]. A call reads the first and appends the new one, so that after
  the N calls of a step each is back in its place.
  """

  def loss_fn(weights, net_state, key, batch, is_training):
    memory = jax.tree.map(lambda x: x[0], net_state)
    memory = scoring.forget(memory, batch.is_first)
    nll, memory = model.apply(
      weights, memory, key, batch.inputs, batch.targets, is_training
    )
    net_state = jax.tree.map(
      lambda rest, new: jnp.concatenate([rest[1:], new[None]]),
      net_state,
      memory,
    )
    return jnp.mean(nll), ({}, net_state)

  return loss_fn


def _init(model, training: Training, key):
  """Returns theta, and the empty memory of each micro-batch."""
  num = training.num_micro
  memory = model.memory(training.batch_size, training.memory_len)
  memory = jax.tree.map(
    lambda x: jnp.reshape(x, (num, -1, *x.shape[1:])), memory
  )
  return model.init(key), memory


def _make_stage(
  method, begin, training, corpus: Callable[[], text.Corpus], loss
) -> base.Stage:
  forward_weights = jax.jit(
    functools.partial(methods.forward_weights, method),
    out_shardings=mesh_lib.replicated(training.mesh),
  )

  def metrics_of(nats):
    return scoring.metrics(nats, corpus().vocabulary.unit)

  def batches(seed, first_step, num_steps):
    del seed  # a text has one order
    sizes = training.batch_size, training.segment_len
    taken = [
      segments.train_batch(corpus().train, step, *sizes)
      for step in range(first_step, first_step + num_steps)
    ]
    stacked = jax.tree.map(lambda *xs: np.stack(xs), *taken)
    sharding = mesh_lib.over_data(training.mesh, 1)
    yield mesh_lib.to_devices(stacked, sharding), num_steps

  def evaluate(state):
    weights = forward_weights(storage_lib.on_device(state))
    return metrics_of(loss(weights, corpus().validation))

  def report(seed, state):
    del seed
    state = storage_lib.on_device(state)
    weights = forward_weights(state)
    test = metrics_of(loss(weights, corpus().test))
    validation = metrics_of(loss(weights, corpus().validation))
    density = float(method.density(state.params, state.opt_state))
    row = {'split': 'test', **test, 'density': density}
    return [row | {f'validation_{name}': x for name, x in validation.items()}]

  return base.Stage(
    num_steps=training.num_steps,
    labels={},
    begin=begin,
    key=functools.partial(methods.training_key, prng=training.prng),
    batches=batches,
    evaluate=evaluate,
    report=report,
    derive=lambda metrics: metrics_of(metrics['loss']),
  )


def _batch_shapes(training: Training) -> segments.Segments:
  row = (training.batch_size,)
  both = (*row, training.segment_len)
  tokens = jax.ShapeDtypeStruct(both, jnp.int32)
  shapes = segments.Segments(
    tokens,
    tokens,
    jax.ShapeDtypeStruct(row, bool),
    jax.ShapeDtypeStruct(both, jnp.float32),
  )
  return mesh_lib.with_sharding(shapes, mesh_lib.over_data(training.mesh))


def _example(model, training: Training) -> base.Example:
  """Returns one row of a batch: a segment with a full memory."""
  memory = jax.eval_shape(lambda: model.memory(1, training.memory_len))
  tokens = jax.ShapeDtypeStruct((1, training.segment_len), jnp.int32)
  return base.Example(
    lambda params, memory, tokens: model.apply(
      params, memory, None, tokens, tokens, False
    )[0],
    (memory, tokens),
  )


def _check_data(
  corpus: text.Corpus, vocab_size: int, training: Training
) -> None:
  if vocab_size != corpus.vocabulary.size:
    raise ValueError(
      f'config.model.vocab_size: expected {corpus.vocabulary.size}, the size '
      f"of the text's vocabulary, got {vocab_size}"
    )
  try:
    segments.steps_per_epoch(
      len(corpus.train), training.batch_size, training.segment_len
    )
  except ValueError as error:
    raise ValueError(f'config.train: {error}') from error
  for name in ('validation', 'test'):
    if len(getattr(corpus, name)) < 2:
      raise ValueError(
        f'config.data: expected at least 2 tokens in the {name} split, got '
        f'{len(getattr(corpus, name))}; take a longer text'
      )


def _check_vocabulary(workdir: pathlib.Path, corpus: text.Corpus) -> None:
  path, checkpoints = workdir / VOCABULARY, workdir / 'checkpoints'
  if path.exists() or (checkpoints.is_dir() and any(checkpoints.iterdir())):
    there, now = vocabulary_lib.read(path), corpus.vocabulary
    if there != now:
      raise ValueError(
        f'expected the vocabulary that the run was trained with, {path}: '
        f'{there.size} tokens ({there.unit}) there; got another: {now.size} '
        f'({now.unit}). Use the data of the run, or a new folder'
      )


def _write_vocabulary(workdir: pathlib.Path, corpus: text.Corpus) -> None:
  path = workdir / VOCABULARY
  if not path.exists():
    rundir.write_bytes(path, vocabulary_lib.to_json(corpus.vocabulary))


# Check a section; the text is read by a call of the result.
_TEXTS = {
  name: functools.wraps(make)(functools.partial(functools.partial, make))
  for name, make in text.TEXTS.items()
}
