"""The section of each sparse method, for a density and a length of training.

Milestones are shares of the training, those of RigL's recipe where it has them:
gradual pruning from 10,000 to 25,000 of 32,000 steps, RigL until 25,000, every
100 steps (https://github.com/google-research/rigl).
"""

from typing import Any

from ml_collections import config_dict

NAMES = (
  'dense', 'static', 'set', 'rigl', 'magnitude', 'gradual', 'snip', 'topkast',
)  # fmt: skip

START, END = 10_000 / 32_000, 25_000 / 32_000


def section(
  name: str,
  *,
  density: float,
  num_steps: int,
  refresh_every: int,
  distribution: str = 'uniform',
  exclude: tuple[str, ...] = (),
  backward_density: float | None = None,
  grow_at: float = 0.0,
  storage: str = 'masked',
) -> dict[str, Any]:
  """Returns the section `config.method`.

  Args:
    name: one of `NAMES`.
    density: share of weights at the end; of Top-KAST, forward.
    num_steps: length of the training.
    refresh_every: updates between changes of the sets.
    distribution: of the density over layers.
    exclude: layers that stay dense and do not count.
    backward_density: of Top-KAST; None: twice the forward density, at most 1.
    grow_at: where SET and RigL let weights start: over 0 with
      Powerpropagation, in which a weight at zero stays there.
    storage: 'masked'; 'masked_products', whose products skip what is masked;
      or 'compact', both for what keeps its numbers of weights.
  """
  shared = dict(
    density=density, distribution=distribution, dense=(), exclude=exclude
  )
  pattern = dict(pattern=dict(name='unstructured'))
  if backward_density is None:
    backward_density = min(1.0, 2 * density)
  sections = {
    'dense': dict(),
    'static': dict(shared, scope='layer'),
    'set': dict(
      shared,
      **pattern,
      refresh_every=refresh_every,
      stop_refresh_at=int(END * num_steps),
      drop_fraction=0.3,
      anneal='constant',
      grow_at=grow_at,
    ),
    'rigl': dict(
      shared,
      **pattern,
      refresh_every=refresh_every,
      stop_refresh_at=int(END * num_steps),
      drop_fraction=0.3,
      anneal='cosine',
      grow_at=grow_at,
    ),
    'magnitude': dict(
      shared,
      **pattern,
      at=num_steps // 2,
      scope='layer',
      score='magnitude',
    ),
    'gradual': dict(
      shared,
      **pattern,
      start=int(START * num_steps),
      end=int(END * num_steps),
      prune_every=refresh_every,
      scope='layer',
      score='magnitude',
    ),
    'snip': dict(shared, **pattern, num_batches=1, scope='layer'),
    'topkast': dict(
      forward_density=density,
      backward_density=backward_density,
      refresh_every=refresh_every,
      stop_refresh_at=config_dict.placeholder(int),  # None: never
      distribution=distribution,
      scope='layer',
      dense=(),
      exclude=exclude,
      exploration='topk',
      penalty=1e-4,
      penalty_kind='l2',
    ),
  }
  return dict(name=name, storage=storage, **sections[name])
