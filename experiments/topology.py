"""A training step compiled for TPUs that are not there, and its memory.

libtpu holds the compiler: `pip install '.[tpu]'`, or `make JAX_EXTRA=tpu
setup`. Nothing runs; bytes and FLOPs are those of the compiled program.
"""

from collections.abc import Mapping
import os
import re
from typing import Any
from typing import NamedTuple

import jax
from jax.experimental import topologies
import numpy as np

from experiments import initial
from experiments import mesh as mesh_lib
from experiments import step as step_lib
from experiments import storage as storage_lib
from experiments.tasks import base

GIB = 2**30
# Memory of a chip in GiB, by generation; the compiler keeps a little of it.
MEMORY = {'v4': 32, 'v5e': 16, 'v5p': 95, 'v6e': 32}
_NAME = re.compile(r'(\w+):(\d+(?:x\d+){1,2})')
_KNOWN = (
  f'GENERATION:SHAPE, of {", ".join(MEMORY)}, such as v5e:1x1, v5e:2x2, '
  'v5e:4x8, v6e:2x2, v4:2x2x1 or v5p:2x2x2'
)
# Read by libtpu, which else asks the cloud for the machine it is on.
_OFFLINE = {
  'TPU_SKIP_MDS_QUERY': '1', 'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_STDERR_LOG_LEVEL': '3',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}  # fmt: skip
_TOO_LARGE = re.compile(r'([\d.]+)([KMG])\)? (?:exceeds|of) .*?([\d.]+)G')


class Usage(NamedTuple):
  """Bytes and FLOPs of a step on each device; None: not known.

  A program that does not fit has no sizes but `peak`, of its temporaries alone
  in some cases.
  """

  arguments: int | None
  temporaries: int | None
  output: int | None  # beside the arguments whose memory it takes over
  peak: int
  flops: float | None
  fits: bool


def devices(name: str) -> tuple[Any, ...]:
  """Returns the devices of a topology, to compile for.

  Raises ValueError if libtpu is missing or does not know the name.
  """
  match = _NAME.fullmatch(name)
  if match is None or match[1] not in MEMORY:
    raise ValueError(f'--topology: expected {_KNOWN}, got {name!r}')
  shape = [int(size) for size in match[2].split('x')]
  options: dict[str, Any] = {}
  if np.prod(shape) < 4:  # part of a host
    options['chips_per_host_bounds'] = [*shape, 1][:3]
  if match[1] == 'v4':  # a device is a chip, not one of its two cores
    options['chip_config_name'] = 'megacore'
  for key, value in _OFFLINE.items():
    os.environ.setdefault(key, value)
  try:
    found = topologies.get_topology_desc(name, 'tpu', **options)
  except jax.errors.JaxRuntimeError as error:
    reason = str(error).partition('\n')[0]
    raise ValueError(
      f'--topology: expected {_KNOWN}, got {name!r}: {reason}'
    ) from error
  except RuntimeError as error:
    raise ValueError(
      '--topology: expected libtpu, the compiler for TPUs, got none; install '
      f"it by pip install 'jax[tpu]=={jax.__version__}' (make JAX_EXTRA=tpu)"
    ) from error
  return tuple(found.devices)


def make_task(config: Mapping[str, Any], name: str) -> base.Task:
  """Returns a config's task on all devices of a topology."""
  train = {**config['train'], 'num_devices': None}
  with mesh_lib.on(devices(name)):
    return initial.make_task({**config, 'train': train})


def compile_step(task: base.Task) -> Usage:
  """Compiles one whole training step for the devices of a task."""
  state = storage_lib.on_device(task.state)
  replicated = mesh_lib.replicated(task.training.mesh)
  key = jax.eval_shape(lambda: task.stages[0].key(0))
  step = jax.jit(
    lambda *args: step_lib.train_step(
      task.objective, *args, is_training=task.stages[0].is_training
    ),
    donate_argnums=0,
    out_shardings=(jax.tree.map(lambda x: x.sharding, state), replicated),
  )
  seed = jax.ShapeDtypeStruct((), np.uint32)
  try:
    compiled = step.lower(state, seed, key, task.batch).compile()
  except jax.errors.JaxRuntimeError as error:
    found = _TOO_LARGE.search(str(error))
    if 'RESOURCE_EXHAUSTED' not in str(error) or found is None:
      raise
    unit = {'K': 2**10, 'M': 2**20, 'G': GIB}[found[2]]
    return Usage(None, None, None, round(float(found[1]) * unit), None, False)
  memory = compiled.memory_analysis()
  output = memory.output_size_in_bytes - memory.alias_size_in_bytes
  arguments, temporaries = (
    memory.argument_size_in_bytes, memory.temp_size_in_bytes
  )  # fmt: skip
  flops = compiled.cost_analysis()['flops']
  peak = arguments + temporaries + output
  return Usage(arguments, temporaries, output, peak, flops, True)


def lines(task: base.Task, name: str) -> list[str]:
  """Returns lines on a step compiled for a topology."""
  usage = compile_step(task)
  generation = name.partition(':')[0]
  memory = MEMORY[generation]
  found = [f'  compiled for {name}, {task.training.mesh.size} device(s); each:']
  for label in ('arguments', 'temporaries', 'output', 'peak'):
    if (size := getattr(usage, label)) is not None:
      found.append(f'    {label:12} {size / GIB:>10.3f} GiB')
  if usage.flops is not None:
    found.append(f'    {"FLOPs":12} {usage.flops:>10.4g}')
  if usage.fits:
    return [*found, f'  fits in the {memory} GiB of a {generation} chip']
  found.append(f'  does not fit in the {memory} GiB of a {generation} chip')
  return [*found, f'  try {_advice(task)}']


def _advice(task: base.Task) -> str:
  """Returns the changes of a config that take less memory."""
  training = task.training
  options = ['a larger topology', 'remat in config.model']
  num_micro = 2 * training.num_micro
  if training.batch_size % (num_micro * training.mesh.size) == 0:
    options.insert(0, f'--config.train.num_micro={num_micro}')
  if training.mesh.size > 1 and not training.shard_params:
    options.append('--config.train.shard_params=True')
  return ', '.join(options)
