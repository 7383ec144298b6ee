"""Resources of the jobs of a sweep.

  python launch.py --config=FILE --sweep=NAME --workdir=DIR --executor=slurm \
      --cluster=configs/cluster.py --cluster.partition=gpu --cluster.time_min=60

None leaves a value to the cluster.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """Returns one node, one process and four hours."""
  config = ml_collections.ConfigDict()
  config.time_min = 240  # a job that needs more is queued again ...
  config.num_requeues = 10  # ... so often; preemption does not count
  config.signal_delay_s = 120  # before its end a job saves
  config.nodes = 1  # of a run
  config.tasks_per_node = 1  # several tasks in all train one run together
  config.gpus_per_node = config_dict.placeholder(int)
  config.cpus_per_task = config_dict.placeholder(int)
  config.mem_gb = config_dict.placeholder(int)  # of a node
  config.partition = config_dict.placeholder(str)
  config.account = config_dict.placeholder(str)
  config.qos = config_dict.placeholder(str)
  config.constraint = config_dict.placeholder(str)
  config.setup = ()  # lines of shell before the command
  return config
