import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsity
from tests import oracles

SHAPE = (9, 7)
NUM_ACTIVE = 25  # at density 0.4


def normal(seed):
  random = np.random.default_rng(seed)
  return {
    'a': {
      'w': jnp.asarray(random.standard_normal(SHAPE), jnp.float32),
      'b': jnp.asarray(random.standard_normal(7), jnp.float32),
    }
  }


def run(num_updates, inner=None, **options):
  """Returns (params, state) before and after each update."""
  options = {'density': 0.4, 'refresh_every': 3} | options
  tx = sparsity.set_(inner or optax.sgd(0.3), **options)
  gradients = (normal(i + 1) for i in range(num_updates))
  return oracles.train(tx, normal(0), gradients)


def masks_of(found):
  return [state.sets.forward['a']['w'] for _, state in found]


def stepped(found, t):
  """Returns the weights after step t of SGD, before growing."""
  gradient = np.where(masks_of(found)[t - 1], normal(t)['a']['w'], 0)
  return found[t - 1][0]['a']['w'] - 0.3 * gradient


def num_gone(before, after, weight, num_dropped):
  """Checks that only the smallest went, and returns their number."""
  assert before.sum() == after.sum() == NUM_ACTIVE
  smallest = np.argsort(np.where(before, np.abs(weight), np.inf), axis=None)
  may_go = np.zeros(before.size, bool)
  may_go[smallest[:num_dropped]] = True
  gone = before & ~after
  assert not (gone & ~may_go.reshape(SHAPE)).any()
  return gone.sum()


def test_the_smallest_after_the_step_are_dropped():
  found = run(9)
  masks = masks_of(found)
  total = 0
  for t in range(1, 10):
    before, after = masks[t - 1], masks[t]
    np.testing.assert_allclose(
      found[t][0]['a']['b'],
      found[t - 1][0]['a']['b'] - 0.3 * normal(t)['a']['b'],
      rtol=1e-5,
      atol=1e-6,
    )
    if t % 3:
      np.testing.assert_array_equal(after, before)
      continue
    total += num_gone(before, after, stepped(found, t), round(0.3 * 25))
    grown = after & ~before
    np.testing.assert_allclose(
      found[t][0]['a']['w'], np.where(grown, 0, stepped(found, t)), rtol=1e-5
    )
    np.testing.assert_array_equal(found[t][0]['a']['w'][grown], 0.0)
  # A few of the 24 dropped are drawn again at once: 8 of 46 on average.
  assert 14 <= total < 24


def test_every_entry_that_is_not_kept_is_equally_likely_to_be_grown():
  weight = jnp.arange(1.0, 17.0).reshape(4, 4)

  def grown(seed):
    tx = sparsity.set_(
      optax.sgd(0.0), density=0.5, refresh_every=1, drop_fraction=0.5, seed=seed
    )
    state = tx.init({'w': weight})
    _, new = tx.update({'w': weight}, state, {'w': weight})
    before, after = state.sets.forward['w'], new.sets.forward['w']
    ranks = jnp.argsort(jnp.argsort(jnp.where(before, -weight, 0), axis=None))
    kept = ranks.reshape(4, 4) < 4
    return ~kept, after & ~kept

  free, chosen = jax.lax.map(jax.jit(grown), jnp.arange(2000))
  np.testing.assert_array_equal(chosen.sum((1, 2)), 4)
  # Four of twelve free places, just dropped or not.
  shares = chosen.sum(0) / free.sum(0)
  np.testing.assert_allclose(shares, 1 / 3, atol=0.06)


def test_state_of_grown_weights_is_fresh_and_of_others_kept():
  found = run(6, optax.sgd(0.1, momentum=0.9))
  for t in (3, 6):
    before, after = masks_of(found)[t - 1 : t + 1]
    old, new = (found[i][1].inner[0].trace['a']['w'] for i in (t - 1, t))
    stays = before & after
    moved = 0.9 * old + np.asarray(normal(t)['a']['w'])
    np.testing.assert_allclose(new, np.where(stays, moved, 0), rtol=1e-4)


def test_the_sets_stay_after_the_last_refresh():
  masks = masks_of(run(10, stop_refresh_at=6))
  assert (masks[5] != masks[6]).any()
  for mask in masks[7:]:
    np.testing.assert_array_equal(mask, masks[6])


def test_cosine_drops_less_and_less():
  found = run(9, stop_refresh_at=10, anneal='cosine', drop_fraction=1.0)
  masks = masks_of(found)
  for t in (3, 6, 9):
    fraction = 0.5 * (1 + np.cos(np.pi * t / 10))
    num_gone(masks[t - 1], masks[t], stepped(found, t), round(fraction * 25))


def test_grown_weights_start_at_grow_at_with_their_old_sign():
  found = run(3, grow_at=0.25)
  before, after = masks_of(found)[2:]
  grown = after & ~before
  assert grown.any()
  np.testing.assert_allclose(
    found[3][0]['a']['w'][grown],
    0.25 * np.sign(found[2][0]['a']['w'][grown]),
    rtol=1e-5,
  )


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'refresh_every': 0}, 'interval >= 1, got 0'),
    ({'anneal': 'cosine'}, "anneal='cosine', got None"),
    ({'drop_fraction': 1.5}, r'drop_fraction in \(0, 1\], got 1.5'),
    ({'grow_at': float('nan')}, 'grow_at >= 0, got nan'),
  ],
)
def test_a_bad_option_is_an_error(options, message):
  with pytest.raises(ValueError, match=message):
    sparsity.set_(
      optax.sgd(0.1), **({'density': 0.5, 'refresh_every': 2} | options)
    )
