"""A dry run: a config's sizes, and its step lowered or compiled."""

from collections.abc import Mapping
import math
from typing import Any

import jax
import numpy as np

from experiments import flops
from experiments import initial
from experiments import step as step_lib
from experiments import storage as storage_lib
from experiments import topology as topology_lib
from experiments.tasks import base
from sparsity import compact

PLATFORMS = ('cpu', 'cuda', 'tpu')


def dry_run(
  config: Mapping[str, Any], topology: str | None = None
) -> list[str]:
  """Returns lines about the network of a run, without data or device.

  The training step is lowered for every platform or, given a topology of TPUs,
  compiled for it.
  """
  if topology is not None:
    task = topology_lib.make_task(config, topology)
    return [*_sizes(task), *topology_lib.lines(task, topology)]
  task = initial.make_task(config)
  state = storage_lib.on_device(task.state)
  key = jax.eval_shape(lambda: task.stages[0].key(0))
  exported = jax.export.export(
    jax.jit(
      lambda *args: step_lib.train_step(
        task.objective, *args, is_training=task.stages[0].is_training
      )
    ),
    platforms=PLATFORMS,
    # The kernels' custom calls have no stability guarantee; nothing is stored.
    disabled_checks=[jax.export.DisabledSafetyCheck.custom_call('ALL')],
  )(state, jax.ShapeDtypeStruct((), np.uint32), key, task.batch)
  platforms = ', '.join(exported.platforms)
  lines = [*_sizes(task), f'  the training step lowers for {platforms}']
  if task.example is not None:
    lines += [f'  {line}' for line in flops.totals(flops.report(config))]
  return lines


def _sizes(task: base.Task) -> list[str]:
  """Returns the title of a task, and the sizes on all devices together."""
  state = storage_lib.on_device(task.state)
  lines = [
    task.title,
    f'  parameters    {_num_entries(task.params):>16,}',
    f'  state         {compact.num_bytes(state):>16,} bytes',
    f'  a batch       {compact.num_bytes(task.batch):>16,} bytes',
  ]
  if task.state.host_params is not None:
    num_bytes = compact.num_bytes(task.state.host_params)
    lines.append(f'  on the host   {num_bytes:>16,} bytes')
  return lines


def _num_entries(tree: Any) -> int:
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
