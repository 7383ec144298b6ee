"""The networks of all runs, whatever they were trained on."""

from collections.abc import Sequence

from experiments.paper import collect
from experiments.paper import continual


def networks(records: Sequence[collect.Record]) -> list[collect.Network]:
  """Returns the networks of runs of all experiments, with their figures."""
  of_tasks = [r for r in records if 'strategy' in r.config]
  others = [r for r in records if 'strategy' not in r.config]
  return [
    *(network for record in others for network in collect.networks(record)),
    *continual.networks(of_tasks),
  ]
