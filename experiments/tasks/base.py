"""The Task: an experiment made from a config, before its data are read."""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import pathlib
from typing import Any
from typing import NamedTuple
from typing import TypeVar

import jax
import numpy as np

from experiments import build
from experiments import mesh as mesh_lib
from experiments import methods
from experiments import step as step_lib
from experiments import storage as storage_lib
import sparsity

Row = dict[str, Any]
T = TypeVar('T', bound='Training')
State = storage_lib.TrainState
# (seed, state at the end of the stage before or None) -> first state
Begin = Callable[[int, Any], State]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
  """The section `config.train`, checked."""

  batch_size: int
  num_micro: int
  num_devices: int | None
  num_steps: int  # of a stage
  log_every: int  # steps of a chunk
  eval_every: int
  checkpoint_every: int
  keep_checkpoints: int
  on_not_finite: str
  prng: str = methods.PRNGS[0]
  shard_params: bool = False  # divide parameters and state over the devices
  mesh: jax.sharding.Mesh


class Stage(NamedTuple):
  """A part of a run: all of it, or one task of a stream."""

  num_steps: int
  labels: dict[str, int]  # in each of its rows, such as {'task': 1}
  begin: Begin
  # (seed, first step, number of steps) -> (inputs of a chunk, its steps)
  batches: Callable[[int, int, int], Iterator[tuple[Any, int]]]
  evaluate: Callable[[State], step_lib.Metrics]  # on validation data
  report: Callable[[int, State], list[Row]]  # final rows
  # (seed, last state) -> state to keep, and rows
  finish: Callable[..., tuple[State, list[Row]]] = lambda _, state: (state, [])
  key: Callable[[Any], jax.Array] = methods.training_key  # from the seed
  is_training: bool = True  # False: batch statistics are frozen
  # Counts of events while batches are read, so far.
  counters: Callable[[], dict[str, float]] = dict
  # Metrics that follow from others, such as bits from nats.
  derive: Callable[[dict[str, float]], dict[str, float]] = lambda metrics: {}


class Example(NamedTuple):
  """The forward pass of one example, for its FLOPs."""

  fn: Callable[..., Any]  # (theta, *args) -> outputs
  args: tuple[Any, ...]  # shapes


class Export(NamedTuple):
  """A network in a checkpoint."""

  labels: dict[str, int]  # such as {'task': 2}; {} if there is one network
  step: int  # of its checkpoint
  # state -> theta on the forward set, masks or None, network state
  extract: Callable[[State], tuple[Any, Any, Any]]


class Task(NamedTuple):
  """A training problem: pure functions and lazily read data."""

  title: str
  objective: step_lib.Objective
  training: Training
  stages: tuple[Stage, ...]
  steps: step_lib.Steps
  params: Any  # shapes of theta
  state: State  # shapes with shardings, as trained
  batch: Any  # shapes of a training batch, with shardings
  exports: tuple[Export, ...]
  example: Example | None
  check_data: Callable[[], None]  # reads the data; raises ValueError
  # Files that a run keeps beside its checkpoints, such as a vocabulary: checks
  # the files of a run that goes on, and writes those of a run that begins.
  check_folder: Callable[[pathlib.Path], None] = lambda workdir: None
  write_folder: Callable[[pathlib.Path], None] = lambda workdir: None
  # A language model with the lengths of the evaluation, and their shape.
  language: Any = None

  @property
  def num_steps(self) -> int:
    """Steps of the whole run."""
    return sum(stage.num_steps for stage in self.stages)


def make_task(
  *,
  title: str,
  loss: Callable[..., Any],
  method: methods.Method,
  training: Training,
  init: Callable[[jax.Array], tuple[Any, Any]],
  batch: Any,
  batch_at: Callable[[Any, Any], Any],
  make_stages: Callable[[Begin], tuple[Stage, ...]],
  scores: Callable[[int], Any] | None = None,
  state_spec: Any = None,
  in_loop: bool = True,
  exports: tuple[Export, ...] | None = None,
  **fields: Any,
) -> Task:
  """Returns a task with its compiled steps; `fields` are more of `Task`.

  Args:
    init: key -> theta, network state.
    batch_at: (inputs of a chunk, number of a step in it) -> batch.
    make_stages: from `Stage.begin` of a run's only stage to the stages.
    scores: from a seed to the saliency of theta, for methods that need it.
    state_spec: sharding of the network's state; None: replicated.
    in_loop: one dispatch makes many steps, except for convolutions on a CPU.
    exports: None: one, at the end of the run.
  """
  mesh = training.mesh
  if training.shard_params:
    loss = mesh_lib.gathering(loss, mesh)
  is_skipping = training.on_not_finite == 'skip'
  objective = step_lib.Objective(loss, method, training.num_micro, is_skipping)
  params, _ = jax.eval_shape(init, jax.random.key(0))
  methods.check_exclude(method, params)
  methods.check_phases(method, training.num_steps)
  masked, state = _state_shapes(objective, init, training, state_spec)
  _check_model(objective, state, batch)
  if mesh.devices.flat[0].platform == 'cpu':
    in_loop = in_loop and not _has_convolutions(objective, state, batch)
  if exports is None:
    exports = (export_last(method, training.num_steps),)
  return Task(
    title=f'{title}, batch of {training.batch_size} on {mesh.size} device(s)',
    objective=objective,
    training=training,
    stages=make_stages(_make_begin(objective, init, masked, scores)),
    steps=step_lib.compile_steps(
      objective, batch_at, state, mesh_lib.replicated(mesh), in_loop=in_loop
    ),
    params=params,
    state=state,
    batch=batch,
    exports=exports,
    **fields,
  )


def _state_shapes(
  objective: step_lib.Objective, init, training: Training, spec: Any
) -> tuple[State, State]:
  """Returns the shapes of the masked state and of the trained state."""
  method, mesh = objective.method, training.mesh
  replicated = mesh_lib.replicated(mesh)
  scores = None
  if method.needs_scores:
    scores = jax.eval_shape(lambda: init(jax.random.key(0))[0])
  masked = jax.eval_shape(
    lambda scores: methods.init_state(method, init, 0, scores), scores
  )

  def place(state):
    placed = mesh_lib.with_sharding(state, replicated)
    if training.shard_params:
      placed = mesh_lib.divided(state, mesh)
    net_state = mesh_lib.with_sharding(state.net_state, spec or replicated)
    return placed._replace(net_state=net_state)

  _, storage = method.make(0, scores)
  if training.shard_params and storage.is_compact:
    raise ValueError(
      "config.train.shard_params: expected False with storage 'compact'; take "
      "'masked'"
    )
  return place(masked), storage_lib.shapes(storage, masked, place)


def _check_model(
  objective: step_lib.Objective, state: State, batch: Any
) -> None:
  """Raises ValueError if a sparse layer does not fit the storage; names it."""
  if not objective.method.make(0)[1].is_compact:
    return
  try:
    sparsity.compact.check_model(*_gradients(objective, state, batch))
  except ValueError as error:
    raise ValueError(
      f"config.method.storage: 'compact' cannot serve this model: {error}"
    ) from error


def _has_convolutions(
  objective: step_lib.Objective, state: State, batch: Any
) -> bool:
  if all(x.ndim < 4 for x in jax.tree.leaves(state.params)):
    return False
  compute, *args = _gradients(objective, state, batch)
  return 'conv_general_dilated' in str(jax.make_jaxpr(compute)(*args))


def _gradients(
  objective: step_lib.Objective, state: State, batch: Any
) -> tuple[Any, ...]:
  """Returns the gradients' function and the shapes of its arguments."""
  weights = jax.eval_shape(
    functools.partial(methods.forward_weights, objective.method),
    storage_lib.on_device(state),
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  compute = functools.partial(step_lib.compute_gradients, objective)
  return compute, weights, state.net_state, batch, key


def _make_begin(
  objective: step_lib.Objective, init, masked: State, scores
) -> Begin:
  shardings = jax.tree.map(lambda x: x.sharding, masked)
  start = jax.jit(
    lambda seed, scores: methods.init_state(
      objective.method, init, seed, scores
    ),
    out_shardings=shardings,
  )

  def begin(seed, last):
    del last
    found = scores(seed) if objective.method.needs_scores else None
    _, storage = objective.method.make(seed)
    return storage.pack(start(np.uint32(seed), found))

  return begin


def export_last(method, num_steps: int) -> Export:
  """Returns the network at the end of a run of one stage."""

  def extract(state):
    state = unpack(method, state)
    weights = methods.forward_weights(method, state)
    masks = method.masks(state.params, state.opt_state)
    return weights, masks, state.net_state

  return Export({}, num_steps, extract)


def unpack(method: methods.Method, state: State) -> State:
  """Returns the masked form of a trained state."""
  _, storage = method.make(0)
  return storage.unpack(state)


def to_floats(metrics: Any) -> dict[str, float]:
  """Returns metrics as numbers on the host."""
  fetched = jax.device_get(metrics)
  return {name: float(value) for name, value in fetched.items()}


def make_training(kind: type[T], section: dict) -> T:
  """Returns the section `config.train`, checked, as a kind of `Training`."""
  training = build.call(kind, section, name='config.train', mesh=None)
  for field in dataclasses.fields(kind):
    if field.type is int:
      least = 0 if field.name == 'memory_len' else 1
      value = getattr(training, field.name)
      build.check_least('config.train', least, **{field.name: value})
  for name in ('eval_every', 'checkpoint_every'):
    if getattr(training, name) % training.log_every:
      raise ValueError(
        f'config.train.{name}: expected a multiple of '
        f'log_every={training.log_every}, got {getattr(training, name)}'
      )
  for name, known in (
    ('on_not_finite', step_lib.ON_NOT_FINITE),
    ('prng', methods.PRNGS),
  ):
    if (value := getattr(training, name)) not in known:
      raise ValueError(
        f'config.train.{name}: expected one of {known}, got {value!r}'
      )
  mesh = mesh_lib.make_mesh(training.num_devices)
  mesh_lib.check_batch_size(training.batch_size, mesh, training.num_micro)
  return dataclasses.replace(training, mesh=mesh)
