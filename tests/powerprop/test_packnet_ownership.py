import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from powerprop import packnet
import sparsity
from tests.powerprop import packing


def test_masks_of_all_tasks_are_stored_one_bit_per_entry():
  params = packing.draw(0)
  state = packnet.init(params, num_tasks=100, is_head=packing.IS_HEAD)
  shapes = jax.tree.map(lambda x: (x.shape, x.dtype), state)
  stored = [packing.random_masks(state, seed) for seed in range(30)]
  for masks in stored:
    state = packnet.claim(params, state, masks)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == shapes
  assert state.masks['hidden_1/w'].nbytes == 100 * 144 // 8
  unpack = jax.jit(packnet.task_masks)
  for task in (1, 2, 17, 30):
    for path, mask in unpack(state, task).items():
      np.testing.assert_array_equal(mask, stored[task - 1][path])


def test_sizes_and_tasks_beyond_one_byte_are_packed():
  params = {'w': jnp.ones((3, 3))}
  state = packnet.init(params, num_tasks=300)
  assert state.owner['w'].dtype == np.uint16
  mask = jnp.asarray(np.arange(9).reshape(3, 3) % 4 == 0)
  for _ in range(2):
    state = packnet.claim(params, state, {'w': mask})
  np.testing.assert_array_equal(packnet.task_masks(state, 2)['w'], mask)


def test_the_first_task_that_uses_an_entry_owns_it():
  params = packing.draw(0)
  state = packnet.init(params, num_tasks=5)
  stored = [
    {
      path: np.asarray(mask)
      for path, mask in packing.random_masks(state, n).items()
    }
    for n in range(4)
  ]
  for masks in stored:
    state = packnet.claim(params, state, masks)
  total = dict.fromkeys(('owned', 'new', 'reused', 'size'), 0)
  for path, owner in state.owner.items():
    expected = np.zeros(owner.size, int)
    reused = np.zeros(owner.size, bool)
    for entry in range(owner.size):
      for task in range(1, 5):
        if stored[task - 1][path].flat[entry]:
          reused[entry] = task == 4 and expected[entry] > 0
          expected[entry] = expected[entry] or task
    np.testing.assert_array_equal(owner.reshape(-1), expected)
    counts = {
      'owned': np.sum(expected > 0),
      'new': np.sum(expected == 4),
      'reused': np.sum(reused),
      'size': owner.size,
    }
    shares = packnet.usage(state)[path]
    for name in ('owned', 'new', 'reused'):
      assert getattr(shares, name) == counts[name] / owner.size
    assert shares.free == pytest.approx(np.mean(expected == 0))
    assert packnet.usage(state, 2)[path].owned == np.mean(
      (expected > 0) & (expected <= 2)
    )
    total = {name: total[name] + counts[name] for name in total}
  shares = packnet.usage(state)['all']
  for name in ('owned', 'new', 'reused'):
    assert getattr(shares, name) == total[name] / total['size']
  assert packnet.num_free(state) == total['size'] - total['owned']


def test_usage_before_the_first_task_is_nothing():
  state = packnet.init(packing.draw(0), num_tasks=1)
  assert packnet.usage(state)['all'] == packnet.Usage(0.0, 1.0, 0.0, 0.0)


def test_a_task_starts_from_fresh_free_weights_and_unchanged_owned_ones():
  params, fresh = packing.draw(0), packing.draw(1)
  state = packnet.init(params, num_tasks=3, is_head=packing.IS_HEAD)
  masks = packing.random_masks(state, 2)
  state = packnet.claim(params, state, masks)
  started = packnet.start_task(params, state, fresh)
  for path, mask in masks.items():
    module = path.split('/')[0]
    old, new = params[module], fresh[module]
    expected = np.where(mask, old['w'], new['w'])
    packing.assert_same_bits(started[module]['w'], jnp.asarray(expected))
    packing.assert_same_bits(started[module]['b'], old['b'])
  packing.assert_same_bits(started['logits'], fresh['logits'])


def test_the_first_task_starts_from_fresh_parameters():
  state = packnet.init(packing.draw(0), num_tasks=1, per_task_biases=True)
  packing.assert_same_bits(
    packnet.start_task(packing.draw(0), state, packing.draw(1)), packing.draw(1)
  )


@pytest.mark.parametrize(
  ('per_task_heads', 'per_task_biases'), [(True, False), (False, True)]
)
def test_each_task_has_its_own_heads_or_biases(per_task_heads, per_task_biases):
  first, second = (
    jax.tree.map(lambda x: x + 1, packing.draw(0)),
    packing.draw(1),
  )
  state = packnet.init(
    first,
    num_tasks=3,
    is_head=packing.IS_HEAD,
    per_task_heads=per_task_heads,
    per_task_biases=per_task_biases,
  )
  nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, bool), state.owner)
  sets = packnet.training_sets(first, state)
  assert all(np.all(mask) for mask in jax.tree.leaves(sets))
  state = packnet.claim(first, state, nothing)
  sets = packnet.training_sets(first, state)
  assert all(np.all(mask) for mask in jax.tree.leaves(sets.forward))
  assert np.all(sets.backward['logits']['w']) == per_task_heads
  assert np.all(sets.backward['logits']['b']) == per_task_heads
  assert np.all(sets.backward['hidden']['b']) == per_task_biases
  state = packnet.claim(second, state, nothing)
  for task, own in ((1, first), (2, second)):
    seen = packnet.task_params(second, state, task)
    head = own if per_task_heads else second
    biases = own if per_task_biases else second
    packing.assert_same_bits(seen['logits'], head['logits'])
    packing.assert_same_bits(seen['hidden']['b'], biases['hidden']['b'])
    assert not np.any(seen['hidden']['w'])


def test_copies_are_stored_again_after_retraining():
  params, retrained = packing.draw(0), packing.draw(1)
  state = packnet.init(params, num_tasks=2, is_head=packing.IS_HEAD)
  state = packnet.claim(params, state, packing.random_masks(state, 0))
  state = packnet.store_copies(retrained, state)
  seen = packnet.task_params(params, state, 1)
  packing.assert_same_bits(seen['logits'], retrained['logits'])


def test_heads_are_never_packed():
  state = packnet.init(packing.draw(0), num_tasks=2, is_head=packing.IS_HEAD)
  assert set(state.owner) == set(state.masks) == {'hidden/w', 'hidden_1/w'}
  assert set(state.copies) == {'logits/w', 'logits/b'}


def exhausted():
  params = packing.draw(0)
  state = packnet.init(params, num_tasks=3, is_head=packing.IS_HEAD)
  full = jax.tree.map(lambda x: jnp.ones(x.shape, bool), state.owner)
  return params, packnet.claim(params, state, full)


def test_an_exhausted_network_lists_its_owners():
  params, state = exhausted()
  with pytest.raises(ValueError, match='hidden/w: 96 of 96 owned, 0 free'):
    packnet.start_task(params, state, packing.draw(1))
  with pytest.raises(ValueError, match='task 2, got 0'):
    packnet.check_capacity(state)
  assert packnet.num_free(state) == 0


def test_a_task_may_go_on_in_an_exhausted_network():
  params, state = exhausted()
  started = packnet.start_task(params, state, packing.draw(1), min_free=0)
  packing.assert_same_bits(started['hidden'], params['hidden'])
  packing.assert_same_bits(started['logits'], packing.draw(1)['logits'])
  masks = packnet.fixed_share(started, state, 0.5)
  state = packnet.claim(started, state, masks)
  assert packnet.usage(state)['all'] == packnet.Usage(1.0, 0.0, 0.0, 1.0)


def test_one_task_too_many_is_an_error():
  params = packing.draw(0)
  state = packnet.init(params, num_tasks=1)
  masks = packing.random_masks(state, 0)
  state = packnet.claim(params, state, masks)
  with pytest.raises(ValueError, match='at most 1 tasks'):
    packnet.claim(params, state, masks)
  with pytest.raises(ValueError, match='at most 1 tasks'):
    packnet.start_task(params, state, packing.draw(1))
  for task in (0, 2):
    with pytest.raises(ValueError, match=f'got {task}'):
      packnet.task_params(params, state, task)
    with pytest.raises(ValueError, match=f'got {task}'):
      packnet.task_masks(state, task)
  with pytest.raises(ValueError, match='got 2'):
    packnet.usage(state, 2)


def test_there_is_no_retraining_before_a_claim():
  state = packnet.init(packing.draw(0), num_tasks=1)
  with pytest.raises(ValueError, match='got 0'):
    packnet.retraining_sets(packing.draw(0), state)


def test_masks_that_do_not_fit_are_an_error():
  params = packing.draw(0)
  state = packnet.init(params, num_tasks=1, is_head=packing.IS_HEAD)
  masks = packing.random_masks(state, 0)
  for bad in (
    {'hidden/w': masks['hidden/w']},
    masks | {'hidden/w': masks['hidden/w'][:1]},
    masks | {'hidden/w': masks['hidden/w'].astype(jnp.float32)},
  ):
    with pytest.raises(ValueError, match='a boolean mask for each'):
      packnet.claim(params, state, bad)


def test_other_parameters_or_sets_than_the_network_has_are_errors():
  params = packing.draw(0)
  state = packnet.init(params, num_tasks=1)
  other = {**params, 'logits': params['hidden']}
  with pytest.raises(ValueError, match='logits/b'):
    packnet.start_task(params, state, other)
  tx = packnet.freeze(optax.sgd(0.1))
  sets = packnet.training_sets(other, packnet.init(other, num_tasks=1))
  with pytest.raises(ValueError, match='expected sets like those'):
    packnet.with_sets(tx.init(params), sets)
  with pytest.raises(ValueError, match='one SparseState'):
    packnet.with_sets(optax.sgd(0.1).init(params), sets)


def test_no_tasks_or_an_unknown_head_is_an_error():
  with pytest.raises(ValueError, match='at least one task'):
    packnet.init(packing.draw(0), num_tasks=0)
  with pytest.raises(ValueError, match='selects none'):
    packnet.init(
      packing.draw(0), num_tasks=1, is_head=sparsity.matching('haed')
    )
