"""What a job of a sweep may use on a cluster.

  python launch.py --config=FILE --sweep=NAME --workdir=DIR --executor=slurm \
      --cluster=configs/cluster.py --cluster.partition=gpu --cluster.time_min=60

The values are arguments of `experiments.sweeps.executors.make_cluster`; what is
None is not asked for. With several tasks in all, JAX makes one program of them.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """Returns one node, one process and four hours."""
  config = ml_collections.ConfigDict()
  config.time_min = 240
  config.nodes = 1
  config.tasks_per_node = 1
  config.gpus_per_node = config_dict.placeholder(int)
  config.cpus_per_task = config_dict.placeholder(int)
  config.mem_gb = config_dict.placeholder(int)
  config.partition = config_dict.placeholder(str)
  config.account = config_dict.placeholder(str)
  config.qos = config_dict.placeholder(str)
  config.constraint = config_dict.placeholder(str)
  config.signal_delay_s = 120
  config.num_requeues = 10
  config.setup = ()
  return config
