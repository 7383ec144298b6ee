"""The section of each strategy of continual learning.

Strengths and the densities that are tried are this project's choice.
"""

from typing import Any

from ml_collections import config_dict

NAMES = (
  'efficient_packnet', 'packnet', 'fine_tuning', 'ewc', 'l2', 'joint', 'alone',
)  # fmt: skip

# Tried from the largest down, while accuracy stays.
DENSITIES = (
  0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3,
  0.26, 0.22, 0.19, 0.16, 0.14, 0.12, 0.1, 0.085, 0.07, 0.06, 0.05, 0.04, 0.03,
  0.02, 0.01,
)  # fmt: skip


def section(name: str, *, num_steps: int, gamma: float) -> dict[str, Any]:
  """Returns the section `config.strategy`.

  Args:
    name: one of `NAMES`.
    num_steps: of a task; PackNet retrains for half as many.
    gamma: share of the accuracy that EfficientPackNet keeps.

  Raises:
    ValueError: If there is no such strategy.
  """
  if name not in NAMES:
    raise ValueError(f'expected strategy={"|".join(NAMES)}, got {name!r}')
  sections = {
    'efficient_packnet': dict(
      biases='frozen', gamma=gamma, densities=DENSITIES, search='linear'
    ),
    'packnet': dict(
      biases='frozen',
      density=config_dict.placeholder(float),  # None: 1 / T of all weights
      retrain_steps=max(1, num_steps // 2),
    ),
    'fine_tuning': dict(),
    'ewc': dict(strength=30.0, num_examples=500, fisher_batch_size=10),
    'l2': dict(strength=0.001),
    'joint': dict(),
    'alone': dict(),
  }
  return dict(sections[name], name=name)
