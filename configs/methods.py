"""The section of each sparse method, for a density and a length of training.

Milestones are shares of the training, those of RigL's recipe where it has them:
gradual pruning from 10,000 to 25,000 of 32,000 steps, RigL until 25,000, every
100 steps (https://github.com/google-research/rigl). AC/DC's phases are those of
its authors: of 100 epochs, 10 of warm-up, phases of 5, sparse from 85 on
(https://github.com/IST-DASLab/ACDC).
"""

from typing import Any

from ml_collections import config_dict

NAMES = (
  'dense', 'static', 'set', 'rigl', 'magnitude', 'gradual', 'acdc', 'snip',
  'topkast',
)  # fmt: skip
# Variants of the large configs, some with Powerpropagation.
LARGE = (
  'dense', 'static', 'set', 'rigl', 'gradual', 'acdc', 'topkast',
  'powerprop_gradual', 'powerprop_topkast',
)  # fmt: skip

# Patterns of Top-KAST; other methods train single entries.
PATTERNS = {
  'single': None,
  'fan_in': dict(name='fan_in'),
  '2_of_4': dict(name='n_of_m', n=2, m=4),
  **{
    f'block_{side}': dict(name='block', rows=side, columns=side)
    for side in (4, 16, 64, 128)
  },
}
START, END = 10_000 / 32_000, 25_000 / 32_000


def choose(variant: str, alpha: float) -> tuple[str, float]:
  """Returns the method and alpha of a variant of `LARGE`."""
  name = variant.removeprefix('powerprop_')
  return name, alpha if name != variant else 1.0


def unused(variant: str) -> list[str]:
  """Returns the keys of configs that a variant of `NAMES` does not use."""
  is_topkast = variant.endswith('topkast')
  keys = [] if is_topkast else ['backward_density', 'pattern']
  return keys + (['density', 'distribution'] if variant == 'dense' else [])


def unused_large(variant: str) -> list[str]:
  """Returns the keys of configs that a variant of `LARGE` does not use."""
  keys = [] if variant.startswith('powerprop_') else ['alpha']
  return keys + unused(variant)


def kind(alpha: float, ham: int) -> str:
  """Returns the kind of a row of tuned values: plain, powerprop or ham."""
  return 'ham' if ham else 'powerprop' if alpha > 1 else 'plain'


def section(
  name: str,
  *,
  density: float,
  num_steps: int,
  refresh_every: int,
  distribution: str = 'uniform',
  exclude: tuple[str, ...] = (),
  backward_density: float | None = None,
  alpha: float = 1.0,
  pattern: str = 'single',
  penalty: float = 1e-4,
) -> dict[str, Any]:
  """Returns the section `config.method`; `name` is one of `NAMES`.

  Args:
    density: share of weights at the end; of Top-KAST, forward.
    num_steps, refresh_every: updates in all, and between changes of the sets.
    backward_density: of Top-KAST; None: twice the forward density, at most 1.
    alpha: of Powerpropagation, under which SET, RigL and AC/DC cannot grow
      weights from zero; they start at 1e-4 in theta instead.
    pattern, penalty: of Top-KAST; one of `PATTERNS`, and a coefficient.
  """
  if backward_density is None:
    backward_density = min(1.0, 2 * density)
  layers = dict(distribution=distribution, dense=(), exclude=exclude)
  shared = dict(layers, density=density)
  drawn = dict(shared, init='neuron')  # random sets
  grow_at = 0.0 if alpha == 1 else 1e-4 ** (1 / alpha)
  moving = dict(
    drawn,
    refresh_every=refresh_every,
    stop_refresh_at=int(END * num_steps),
    drop_fraction=0.3,
    grow_at=grow_at,
    warmup_entering=0,
  )
  pruned = dict(shared, scope='layer', score='magnitude')
  sections = {
    'dense': dict(),
    'static': dict(drawn, scope='layer'),
    'set': dict(moving, anneal='constant'),
    'rigl': dict(moving, anneal='cosine'),
    'magnitude': dict(pruned, at=num_steps // 2),
    'gradual': dict(
      pruned,
      start=int(START * num_steps),
      end=int(END * num_steps),
      prune_every=refresh_every,
    ),
    'acdc': dict(shared, scope='layer', grow_at=grow_at, **_phases(num_steps)),
    'snip': dict(shared, init='dense', scope='layer'),
    'topkast': dict(
      layers,
      forward_density=density,
      backward_density=backward_density,
      refresh_every=refresh_every,
      stop_refresh_at=config_dict.placeholder(int),  # None: never
      scope='layer',
      exploration='topk',
      warmup_entering=0,
      explore_scale=1.0,
      penalty=penalty,
      penalty_kind='l2',
    ),
  }
  sections['topkast'] |= _pattern(pattern)
  return dict(name=name, storage='masked', **sections[name])


def _pattern(name: str) -> dict[str, Any]:
  """Returns the keys of a pattern of Top-KAST."""
  if name not in PATTERNS:
    raise ValueError(
      f'expected pattern, one of {", ".join(PATTERNS)}, got {name!r}'
    )
  keys = PATTERNS[name]
  return dict(pattern=keys, otherwise='error') if keys else {}


def _phases(num_steps: int) -> dict[str, int]:
  """Returns the keys of AC/DC's phases."""
  return dict(
    start=max(1, num_steps // 10),
    end=num_steps * 85 // 100,
    phase_steps=max(1, num_steps // 20),
  )
