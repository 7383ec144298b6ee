import jax
import jax.numpy as jnp
import numpy as np
import pytest

from powerprop import packnet
from tests import oracles
from tests.powerprop import packing

DENSITIES = (0.8, 0.4, 0.2, 0.1)


def test_packnet_gives_each_task_its_fraction_of_the_free_entries():
  params = packing.rounded(0)
  state = packing.init(params, 3)
  owned = {path: np.zeros(x.shape, int) for path, x in state.owner.items()}
  for task in (1, 2, 3):
    params = packnet.start_task(params, state, packing.rounded(task))
    masks = packnet.fixed_share(params, state, 0.3)
    for path, mask in masks.items():
      weights = np.asarray(params[path.split('/')[0]]['w'])
      free = np.flatnonzero(owned[path] == 0)
      chosen = free[oracles.largest(weights.flat[free], round(0.3 * free.size))]
      owned[path].flat[chosen] = task
      np.testing.assert_array_equal(mask, owned[path] > 0)
    state = packnet.claim(params, state, masks)
    sets = packnet.retraining_sets(params, state)
    for path, owner in owned.items():
      np.testing.assert_array_equal(state.owner[path], owner)
      module = path.split('/')[0]
      np.testing.assert_array_equal(sets.forward[module]['w'], owner > 0)
      np.testing.assert_array_equal(sets.backward[module]['w'], owner == task)
      assert np.all(sets.backward[module]['b']) == (task == 1)
    assert np.all(sets.backward['logits']['w'])


def run_search(params, accuracy_of_share, *, gamma=0.9, **options):
  """Searches with an accuracy that depends on the density; returns inputs."""
  options = {'densities': DENSITIES, **options}
  state = packing.init(params, 2)
  # Owned weights take part like free ones.
  state = packnet.claim(params, state, packing.random_masks(state, 1))
  seen = []

  def evaluate(params):
    seen.append(jax.tree.map(np.asarray, params))
    return accuracy_of_share(np.mean(seen[-1]['hidden']['w'] != 0))

  return packnet.search(evaluate, params, state, gamma=gamma, **options), seen


@pytest.mark.parametrize('num_passing', [0, 2, 4])
def test_search_finds_the_lowest_density_with_enough_accuracy(num_passing):
  params = packing.draw(3)
  # Entries kept at the four densities: 77, 38, 19, 10 of 96.
  least = (96, 77, 38, 19, 10)[num_passing] / 96
  found, seen = run_search(params, lambda share: 0.8 if share >= least else 0.7)
  density = (1.0, *DENSITIES)[num_passing]
  assert found.density == density
  assert found.accuracy == found.full_accuracy == 0.8
  for path, mask in found.masks.items():
    weights = np.asarray(params[path.split('/')[0]]['w'])
    expected = oracles.largest(weights, round(density * weights.size))
    np.testing.assert_array_equal(mask, expected)
  packing.assert_same_bits(seen[0], params)  # first with all weights
  assert len(found.tried) == len(seen) - 1 == min(num_passing + 1, 4)
  for (density, _), tried in zip(found.tried, seen[1:], strict=True):
    for module in ('hidden', 'hidden_1'):
      weights = np.asarray(params[module]['w'])
      mask = oracles.largest(weights, round(density * weights.size))
      np.testing.assert_array_equal(tried[module]['w'], weights * mask)
      packing.assert_same_bits(tried[module]['b'], params[module]['b'])
    packing.assert_same_bits(tried['logits'], params['logits'])


def test_one_mask_over_all_layers_keeps_the_largest_of_all():
  params = packing.draw(4)
  found, _ = run_search(params, lambda share: 0.8, scope='global')
  weights = {path: params[path.split('/')[0]]['w'] for path in found.masks}
  flat = np.concatenate([np.ravel(x) for x in weights.values()])
  expected = oracles.largest(flat, round(DENSITIES[-1] * flat.size))
  masks = np.concatenate([np.ravel(x) for x in found.masks.values()])
  np.testing.assert_array_equal(masks, expected)
  assert found.density == DENSITIES[-1]
  shares = [mask.mean() for mask in found.masks.values()]
  assert max(shares) > 1.2 * min(shares)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'gamma': 1.1}, r'gamma in \[0, 1\], got 1.1'),
    ({'scope': 'all'}, "scope, one of .*'global'.*, got 'all'"),
    ({'densities': (0.1, 0.5)}, 'decreasing densities'),
    ({'densities': (1.5, 0.5)}, r'densities in \(0, 1\]'),
    ({'accuracy': float('nan')}, 'accuracy, finite and not negative'),
  ],
)
def test_a_bad_argument_or_accuracy_of_a_search_is_an_error(options, message):
  options = dict(options)
  accuracy = options.pop('accuracy', 0.5)
  with pytest.raises(ValueError, match=message):
    run_search(packing.draw(0), lambda _: accuracy, **options)


def test_packnet_keeps_at_least_one_entry_and_none_of_a_full_layer():
  params = {'a': {'w': jnp.ones((1, 3))}, 'b': {'w': jnp.ones((2, 2))}}
  state = packnet.init(params, num_tasks=2)
  full = {'a/w': jnp.ones((1, 3), bool), 'b/w': jnp.zeros((2, 2), bool)}
  state = packnet.claim(params, state, full)
  masks = packnet.fixed_share(params, state, 0.01)
  state = packnet.claim(params, state, masks)
  assert packnet.usage(state)['a/w'].new == 0
  assert packnet.usage(state)['b/w'].new == 0.25
  for density in (0.0, 1.2):
    with pytest.raises(ValueError, match='density'):
      packnet.fixed_share(params, state, density)
